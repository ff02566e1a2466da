//! A server on PostgreSQL, Ceph, Keystone and Barbican, with three nodes and two workers behind a balancer, under load while
//! its parts are killed and the ways between them fail. What was acknowledged is there, and every job that was accepted ends
//! well, once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use calotype_tests::client::{text, try_send};
use calotype_tests::{
    Answer, Ceph, Client, Content, Digests, Engines, Options, Postgres, Server, Way, Weather, Wire,
};
use calotype_tests::{config, engine, until};
use reqwest::Method;
use reqwest::blocking::{Body, RequestBuilder};
use serde_json::{Value, json};

/// Of one part, and of several.
const LENGTHS: [u64; 2] = [150_000, 9_000_000];
const WRITERS: u64 = 2;
/// How long a writer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that gives its engines up after seconds, so that a test need not wait for minutes.
pub(crate) fn server(engines: Engines) -> Server {
    let variables = [
        ("CATALOG__ACQUIRE_TIMEOUT", "3s"),
        ("CATALOG__STATEMENT_TIMEOUT", "3s"),
        ("STORE__MAIN__CONNECTION__IDLE_TIMEOUT", "4s"),
        ("STORE__MAIN__CONNECTION__ATTEMPT_TIMEOUT", "6s"),
        ("STORE__MAIN__CONNECTION__TIME_LIMIT", "8s"),
        ("IDENTITY__KEYSTONE__CACHE_LIFE", "1s"),
        ("IDENTITY__KEYSTONE__CONNECTION__ATTEMPT_TIMEOUT", "5s"),
        ("IDENTITY__KEYSTONE__CONNECTION__TIME_LIMIT", "8s"),
        ("KEYS__BARBICAN__CONNECTION__ATTEMPT_TIMEOUT", "5s"),
        ("KEYS__BARBICAN__CONNECTION__TIME_LIMIT", "8s"),
    ];
    let environment = variables.map(|(name, value)| {
        let name = format!("CALOTYPE_{name}");
        (name, value.to_owned())
    });
    let text = config::limits(100_000, 1000) + &config::jobs(8, 5);
    Server::start(Options::config(text).on(Engines {
        environment: environment.into(),
        ..engines
    }))
}

/// What was acknowledged.
#[derive(Default)]
struct Ledger {
    /// Images, each with the seed and the length of its bytes.
    images: Vec<(String, u64, u64)>,
    /// Jobs, each with those of the source's.
    jobs: Vec<(String, u64, u64)>,
    /// Images and their tags.
    tags: Vec<(String, String)>,
}

/// What writers and faults know of each other.
#[derive(Default)]
pub(crate) struct Load {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    put_off: AtomicUsize,
}

impl Load {
    /// Waits until so many further writes are acknowledged.
    pub(crate) fn goes_on(&self, writes: usize) {
        more("writes to be acknowledged", &self.acknowledged, writes);
    }

    /// Waits until a write is put off.
    pub(crate) fn stands_still(&self) {
        more("a write to be put off", &self.put_off, 1);
    }

    /// The answer of a request that was not put off. What is neither fails.
    fn asked(&self, request: RequestBuilder) -> Option<Answer> {
        // A node that says nothing keeps its clients for as long as they have patience.
        let answer = try_send(request.timeout(PATIENCE)).ok().filter(|answer| {
            let put_off = matches!(answer.status, 502..=504);
            assert!(put_off || answer.status < 300, "{answer}");
            !put_off
        });
        let count = if answer.is_some() {
            &self.acknowledged
        } else {
            &self.put_off
        };
        count.fetch_add(1, Ordering::SeqCst);
        answer
    }
}

fn more(what: &str, count: &AtomicUsize, by: usize) {
    let wanted = count.load(Ordering::SeqCst) + by;
    until(what, || {
        (count.load(Ordering::SeqCst) >= wanted).then_some(())
    });
}

/// Writes until it is told to stop: images, replicas of them, plain and under a key, and tags.
fn write(client: &Client, key: &str, writer: u64, load: &Load) -> Ledger {
    let mut ledger = Ledger::default();
    let mut number = writer << 32;
    while !load.stop.load(Ordering::SeqCst) {
        number += 1;
        let length = LENGTHS[usize::from(number.is_multiple_of(4))];
        let Some(image) = upload(client, number, length, load) else {
            continue;
        };
        ledger.images.push((image.clone(), number, length));
        let tag = format!("tag-{number}");
        let path = format!("/v2/images/{image}/tags/{tag}");
        if load.asked(client.request(Method::PUT, &path)).is_some() {
            ledger.tags.push((image.clone(), tag));
        }
        for body in [
            json!({"name": format!("plain-{number}")}),
            json!({"name": format!("sealed-{number}"), "cmk_id": key}),
        ] {
            let path = format!("/v1/cloudimages/{image}/copy");
            let request = client.request(Method::POST, &path).json(&body);
            if let Some(accepted) = load.asked(request) {
                let job = text(&accepted.json()["job_id"]);
                ledger.jobs.push((job, number, length));
            }
        }
    }
    ledger
}

/// Uploads an image; its id, where that was acknowledged.
fn upload(client: &Client, seed: u64, length: u64, load: &Load) -> Option<String> {
    let body = json!({"name": "image", "disk_format": "raw", "container_format": "bare"});
    let made = load.asked(client.request(Method::POST, "/v2/images").json(&body))?;
    let image = text(&made.json()["id"]);
    let path = format!("/v2/images/{image}/file");
    let bytes = Body::sized(Content::new(seed, length), length);
    let request = client.request(Method::PUT, &path);
    let typed = request.header("Content-Type", "application/octet-stream");
    load.asked(typed.body(bytes))?;
    Some(image)
}

/// Lets writers write while faults happen, and proves that what they were told is so.
pub(crate) fn under_load(server: &mut Server, faults: impl FnOnce(&mut Server, &Load)) {
    let client = server.user();
    let key = client.create_key("key");
    let load = Load::default();
    let ledgers: Vec<Ledger> = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=WRITERS)
            .map(|writer| {
                let (client, key, load) = (&client, &key, &load);
                scope.spawn(move || write(client, key, writer, load))
            })
            .collect();
        // Told to stop also where a fault did not go as it was to.
        let stop = StopsAtEnd(&load);
        load.goes_on(4);
        faults(server, &load);
        load.goes_on(8);
        drop(stop);
        let ledgers = writers.into_iter().map(|writer| writer.join());
        ledgers.map(|ledger| ledger.expect("a writer")).collect()
    });
    expect_back(server, &client, &key, &ledgers[0].images[0].0);
    for ledger in &ledgers {
        expect_kept(&client, ledger);
    }
    expect_once(server, &client, &ledgers);
    server.verify();
}

/// Every node reaches every engine again.
fn expect_back(server: &mut Server, client: &Client, key: &str, image: &str) {
    let mut number = 0;
    for node in server.nodes() {
        let client = client.at(node.base());
        let job = until("a node to reach its engines again", || {
            number += 1;
            let body = json!({"name": format!("back-{number}"), "cmk_id": key});
            let answer = client.copy(image, body);
            (answer.status == 200).then(|| text(&answer.json()["job_id"]))
        });
        assert_eq!(client.job(&job).status(), "SUCCESS");
    }
}

struct StopsAtEnd<'a>(&'a Load);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

fn expect_kept(client: &Client, ledger: &Ledger) {
    assert!(!ledger.images.is_empty() && !ledger.jobs.is_empty());
    for (image, seed, length) in &ledger.images {
        let wanted = Digests::of(Content::new(*seed, *length));
        assert_eq!(client.download(image), wanted, "{image}");
    }
    for (job, seed, length) in &ledger.jobs {
        let ended = client.job(job);
        assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
        let wanted = Digests::of(Content::new(*seed, *length));
        assert_eq!(client.download(&ended.image()), wanted, "{job}");
    }
    for (image, tag) in &ledger.tags {
        let shown = client.show(image);
        let tags = shown["tags"].as_array().expect("tags");
        assert!(tags.contains(&json!(tag)), "{tag}: {shown}");
    }
}

/// Each job made one image, whoever did it, and its end is told once.
fn expect_once(server: &Server, client: &Client, ledgers: &[Ledger]) {
    client.idle();
    let jobs = ledgers.iter().flat_map(|ledger| &ledger.jobs);
    let made: Vec<String> = jobs.map(|(job, ..)| client.job(job).image()).collect();
    let distinct: BTreeSet<&String> = made.iter().collect();
    assert_eq!(
        distinct.len(),
        made.len(),
        "each job has an image of its own"
    );
    let named = "select count(*), count(distinct name) from images where name <> 'image'";
    let counted = calotype_tests::database::sql(server.database(), named);
    let (all, names) = counted.trim().split_once('|').expect("two numbers");
    assert_eq!(all, names, "a replica was made twice");
}

/// Every way in which the way to an engine can fail, one after the other. Each is met, and afterwards all goes on.
fn fails_in_every_way(server: &mut Server, wire: &Wire, stops_writes: bool) {
    under_load(server, |_, load| {
        wire.reset();
        load.goes_on(4);
        for weather in [Weather::Slow(64), Weather::Down, Weather::Still] {
            let met = wire.met();
            wire.becomes(weather);
            until("the fault to be met", || (wire.met() > met).then_some(()));
            if stops_writes && !matches!(weather, Weather::Slow(_)) {
                load.stands_still();
            }
            wire.becomes(Weather::Fine);
            load.goes_on(4);
        }
    });
    assert!(wire.met() > 0);
}

#[test]
fn a_network_to_postgresql_that_fails_in_every_way_loses_nothing_that_was_acknowledged() {
    let url = calotype_tests::database::fresh("engine_faults");
    let wire = Wire::before(&url);
    let mut server = server(Engines {
        database: Some(wire.url(&url)),
        ..Engines::default()
    });
    fails_in_every_way(&mut server, &wire, true);
}

#[test]
fn a_network_to_ceph_that_fails_in_every_way_loses_nothing_that_was_acknowledged() {
    let ceph = Ceph::connect();
    let wire = Wire::before(ceph.url());
    let mut server = server(Engines {
        store: Some(wire.url(ceph.url())),
        ..Engines::default()
    });
    fails_in_every_way(&mut server, &wire, true);
}

#[test]
fn a_network_to_keystone_that_fails_in_every_way_loses_nothing_that_was_acknowledged() {
    let keystone = engine("CALOTYPE_TEST_KEYSTONE_URL");
    let wire = Wire::before(&keystone);
    let mut server = server(Engines {
        keystone: Some(wire.url(&keystone)),
        ..Engines::default()
    });
    fails_in_every_way(&mut server, &wire, true);
}

#[test]
fn a_network_to_barbican_that_fails_in_every_way_loses_nothing_that_was_acknowledged() {
    let barbican = engine("CALOTYPE_TEST_BARBICAN_URL");
    let wire = Wire::before(&barbican);
    let mut server = server(Engines {
        barbican: Some(wire.url(&barbican)),
        ..Engines::default()
    });
    fails_in_every_way(&mut server, &wire, true);
}

/// Where one node does not reach an engine, or the balancer a node, the others go on; and so do jobs where one worker does not.
#[test]
fn a_network_that_fails_between_any_two_holds_up_nobody_else_and_loses_nothing() {
    let mut server = server(Engines {
        wired: true,
        ..Engines::default()
    });
    under_load(&mut server, |server, load| {
        for Way { from, to, wire } in server.ways() {
            for weather in [Weather::Slow(64), Weather::Still, Weather::Down] {
                let met = wire.met();
                wire.becomes(weather);
                load.goes_on(4);
                // Workers show Keystone their password once, for what they ask Barbican with.
                if !(from.starts_with("worker") && to == "Keystone") {
                    let what = format!("{weather:?} to be met between {from} and {to}");
                    until(&what, || (wire.met() > met).then_some(()));
                }
                wire.becomes(Weather::Fine);
            }
        }
    });
}

#[test]
fn nodes_workers_and_postgresql_that_are_killed_lose_nothing_that_was_acknowledged() {
    let mut postgres = Postgres::start();
    let mut server = server(Engines {
        database: Some(postgres.url()),
        ..Engines::default()
    });
    under_load(&mut server, |server, load| {
        for round in 0..2 {
            server.nodes()[round].kill9();
            load.goes_on(4);
            server.workers()[round % 2].kill9();
            load.goes_on(4);
            server.nodes()[round].restart();
            server.workers()[round % 2].restart();
            postgres.kill9();
            load.stands_still();
            postgres.restart();
            load.goes_on(4);
        }
    });
}

#[test]
fn a_reseal_waits_for_barbican_to_come_back_and_goes_on() {
    let barbican = engine("CALOTYPE_TEST_BARBICAN_URL");
    let wire = Wire::before(&barbican);
    let mut server = server(Engines {
        barbican: Some(wire.url(&barbican)),
        ..Engines::default()
    });
    let client = server.user();
    let source = client.image("source", 1, LENGTHS[1]);
    let key = client.create_key("key");
    let sealed = client.replicate_with(&source, json!({"name": "sealed", "cmk_id": key}));
    let other = client.create_key("other");
    // Nobody does the job before the keys are away, and who does it then has never seen them.
    server
        .workers()
        .iter_mut()
        .for_each(|worker| worker.kill9());
    let job = client.begin_copy(&sealed, json!({"name": "again", "cmk_id": other}));
    wire.becomes(Weather::Down);
    let met = wire.met();
    server
        .workers()
        .iter_mut()
        .for_each(|worker| worker.restart());
    until("an attempt in vain", || {
        let attempt = client.progress(&job)["attempt"].as_u64();
        (wire.met() > met && attempt >= Some(2)).then_some(())
    });
    let waits: Value = client.show_job(&job).expect(200).json();
    assert!(
        waits["status"] != "FAIL" && waits["status"] != "SUCCESS",
        "{waits}"
    );
    wire.becomes(Weather::Fine);
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    let wanted = Digests::of(Content::new(1, LENGTHS[1]));
    assert_eq!(client.download(&ended.image()), wanted);
    server.verify();
}
