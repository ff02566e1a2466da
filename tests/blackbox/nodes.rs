//! Many nodes on one PostgreSQL: clocks that are wrong, a pooler between, a database that dies, and who collects.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calotype_tests::{
    Client, Content, Digests, Options, PgBouncer, Postgres, Server, Standby, config, database,
    until,
};
use serde_json::json;

/// What is shared by the nodes of a test.
struct Shared {
    text: String,
    store: tempfile::TempDir,
}

impl Shared {
    /// Nodes with the catalog at this URL.
    fn at(url: &str) -> Self {
        let store = tempfile::tempdir().expect("a directory");
        let text = config::shared(url, store.path());
        Self {
            text: format!("{text}\n{}", config::limits(100_000, 1000)),
            store,
        }
    }

    fn node(&self) -> Server {
        self.node_in(Vec::new())
    }

    fn node_in(&self, environment: Vec<(String, String)>) -> Server {
        Server::start(Options {
            environment,
            ..Options::config(self.text.clone())
        })
    }
}

/// The environment of a process whose clock is off by this much, in libfaketime's words. What it measures spans with goes
/// on as it does for all.
pub(crate) fn clock_off_by(offset: &str) -> Vec<(String, String)> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let library = places
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let library = library.expect("libfaketime: `cargo xtask test` installs it");
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    variables.into_iter().map(owned).collect()
}

/// Seconds since the epoch, as the database has it.
fn database_time(url: &str) -> i64 {
    let time = database::sql(url, "select extract(epoch from now())::bigint");
    time.trim().parse().expect("a time")
}

fn seconds(url: &str, time: &serde_json::Value) -> i64 {
    let time = time.as_str().expect("a time");
    let sql = format!("select extract(epoch from timestamptz '{time}')::bigint");
    database::sql(url, &sql).trim().parse().expect("a time")
}

#[test]
fn a_node_whose_clock_is_a_day_off_steals_no_job_and_deletes_nothing_early() {
    for (name, offset) in [("ahead", "+1d"), ("behind", "-1d")] {
        let url = database::fresh(&format!("nodes_clock_{name}"));
        let shared = Shared::at(&url);
        let right = shared.node();
        let wrong = shared.node_in(clock_off_by(offset));
        let first = right.user();
        let second = first.at(wrong.base());

        // Its times are the others'.
        let begin = database_time(&url);
        let made = second.show(&second.image("made-there", 1, 200_000));
        let at = seconds(&url, &made["created_at"]);
        assert!(
            (begin - 5..=database_time(&url) + 5).contains(&at),
            "{offset}: {made}"
        );

        // What it lets in, they let in, and the other way round.
        let wrong_user = Client::login(
            wrong.base(),
            &right.clouds().cloud("calotype").get("username"),
            &right.clouds().cloud("calotype").get("password"),
            &right.clouds().cloud("calotype").get("project_name"),
        );
        wrong_user.at(right.base()).get("/v2/images").expect(200);

        // Each job is done once, by the attempt that took it first.
        let source = first.image("source", 2, 200_000);
        let jobs: Vec<String> = (0..60)
            .map(|number| {
                let client = [&first, &second][number % 2];
                client.begin_copy(&source, json!({"name": format!("replica-{number}")}))
            })
            .collect();
        for id in &jobs {
            assert_eq!(second.job(id).status(), "SUCCESS");
            let shown = first.show_job(id).expect(200).json();
            assert_eq!(shown["calotype"]["attempt"], 1, "{offset}: {shown}");
        }

        // What was deleted a moment ago is kept for its grace, a day, and what is there is there.
        let gone = first.image("gone", 3, 200_000);
        first.delete(&format!("/v2/images/{gone}")).expect(204);
        let blobs = "select count(*) from blobs where state = 'stored'";
        let before = database::sql(&url, blobs);
        collects(&right, &wrong, &url);
        assert_eq!(database::sql(&url, blobs), before, "{offset}");
        assert_eq!(
            second.download(&source),
            Digests::of(Content::new(2, 200_000))
        );
        right.verify();
    }
}

#[test]
fn a_collector_whose_rounds_fail_is_told_by_its_node_alone() {
    let url = database::fresh("nodes_rounds");
    let shared = Shared::at(&url);
    let nodes = [shared.node(), shared.node()];
    let behind = |node: &Server| node.metric("calotype_collector_behind_seconds", &[]);
    database::sql(&url, "alter table blobs rename to blobs_away");
    // A round begins every ten seconds.
    let told = until("rounds to be missed", || {
        let holder = database::sql(&url, "select holder from leases where name = 'reconciler'");
        let is_holder = |node: &Server| holder.contains(&format!("-{}-", node.pid()));
        let told = nodes.iter().position(is_holder)?;
        (behind(&nodes[told]) > 15.0).then_some(told)
    });
    until("the other one to see who has the lease", || {
        (behind(&nodes[1 - told]) < 10.0).then_some(())
    });
    database::sql(&url, "alter table blobs_away rename to blobs");
    until("rounds to be made", || {
        (behind(&nodes[told]) < 15.0).then_some(())
    });
}

/// Lets the node with the wrong clock collect, a whole round: whoever else has the lease loses it.
fn collects(right: &Server, wrong: &Server, url: &str) {
    let taken = "update leases set holder = 'nobody', expires_at = 0 where name = 'reconciler' \
                 and holder like '%-RIGHT-%'";
    let taken = taken.replace("RIGHT", &right.pid().to_string());
    let held = format!(
        "select expires_at from leases where name = 'reconciler' and holder like '%-{}-%'",
        wrong.pid()
    );
    let begun = until("the one whose clock is wrong to have the lease", || {
        database::sql(url, &taken);
        Some(database::sql(url, &held)).filter(|held| !held.trim().is_empty())
    });
    // It is extended when the next round begins.
    until("a round of the one whose clock is wrong", || {
        database::sql(url, &taken);
        let held = database::sql(url, &held);
        (!held.trim().is_empty() && held != begun).then_some(())
    });
}

#[test]
fn nodes_behind_a_pooler_in_transaction_mode_run_one_queue() {
    let url = database::fresh("nodes_pooler");
    let pooler = PgBouncer::start(&url);
    let (_, name) = url.rsplit_once('/').expect("a database");
    let pooled = format!("postgres://postgres@127.0.0.1:{}/{name}", pooler.port());
    let mut shared = Shared::at(&pooled);
    let with = format!("[catalog]\npooler = \"transaction\"\ndirect_url = \"{url}\"\n");
    shared.text = shared.text.replacen("[catalog]\n", &with, 1);
    let (first, second) = (shared.node(), shared.node());
    let here = first.user();
    let there = here.at(second.base());
    let source = here.image("source", 1, 200_000);
    let jobs: Vec<String> = (0..100)
        .map(|number| {
            let client = [&here, &there][number % 2];
            client.begin_copy(&source, json!({"name": format!("replica-{number}")}))
        })
        .collect();
    for id in &jobs {
        assert_eq!(there.job(id).status(), "SUCCESS");
    }
    assert_eq!(here.list().len(), jobs.len() + 1);
    first.verify();
}

#[test]
fn of_two_nodes_one_collects_and_when_it_dies_the_other() {
    let url = database::fresh("nodes_collector");
    let shared = Shared::at(&url);
    let mut nodes = [shared.node(), shared.node()];
    let holder = || database::sql(&url, "select holder from leases where name = 'reconciler'");
    let of = |server: &Server| format!("-{}-", server.pid());
    let first = until("a collector", || {
        let holder = holder();
        nodes.iter().position(|node| holder.contains(&of(node)))
    });
    nodes[first].kill9();
    until("the other to collect", || {
        holder().contains(&of(&nodes[1 - first])).then_some(())
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_postgresql_is_killed_and_all_goes_on_when_it_is_back() {
    loses_nothing(|mut postgres| {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(700));
            postgres.kill9();
            std::thread::sleep(Duration::from_millis(300));
            postgres.restart();
        }
        postgres
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_a_standby_takes_postgresqls_place_and_all_goes_on() {
    loses_nothing(|mut postgres| {
        for _ in 0..2 {
            let standby = Standby::of(&postgres);
            std::thread::sleep(Duration::from_millis(700));
            postgres = standby.take_the_place_of(postgres);
        }
        postgres
    });
}

/// Two nodes are asked for replicas and sent images while something happens to their database.
fn loses_nothing(happens: impl FnOnce(Postgres) -> Postgres) {
    let postgres = Postgres::start();
    let url = postgres.url();
    let (url, password) = database::apart(&url);
    let shared = Shared::at(&url);
    let secret = shared.store.path().join("password");
    std::fs::write(&secret, password.expect("a password")).expect("the password");
    let file = secret.display().to_string();
    let environment = vec![("CALOTYPE_CATALOG__PASSWORD_FILE".to_owned(), file)];
    let nodes = [(); 2].map(|()| shared.node_in(environment.clone()));
    let client = nodes[0].user();
    let admin = nodes[0].admin();
    let source = client.image("source", 1, 200_000);
    let stop = AtomicBool::new(false);
    let (_postgres, accepted, uploaded) = std::thread::scope(|scope| {
        let askers: Vec<_> = nodes
            .iter()
            .map(|node| {
                let client = client.at(node.base());
                let (source, stop) = (&source, &stop);
                let uploader = client.at(node.base());
                (
                    scope.spawn(move || ask_until(&client, source, stop)),
                    scope.spawn(move || upload_until(&uploader, stop)),
                )
            })
            .collect();
        let postgres = happens(postgres);
        std::thread::sleep(Duration::from_millis(700));
        stop.store(true, Ordering::SeqCst);
        let (mut accepted, mut uploaded) = (Vec::new(), Vec::new());
        for (asker, uploader) in askers {
            accepted.extend(asker.join().expect("an asker"));
            uploaded.extend(uploader.join().expect("an uploader"));
        }
        (postgres, accepted, uploaded)
    });
    let wanted = Digests::of(Content::new(3, UPLOADED));
    for image in &uploaded {
        assert_eq!(client.download(image), wanted);
    }
    for id in &accepted {
        let job = client.job(id);
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        client
            .get(&format!("/v2/images/{}", job.image()))
            .expect(200);
    }
    admin.verify();
}

/// Asks for replicas, one after the other, until it shall stop and one was accepted; the ids of the jobs. What is not
/// accepted is put off, and says when to ask again.
fn ask_until(client: &Client, source: &str, stop: &AtomicBool) -> Vec<String> {
    let mut accepted = Vec::new();
    let mut number = 0;
    while accepted.is_empty() || !stop.load(Ordering::SeqCst) {
        number += 1;
        let answer = client.copy(source, json!({"name": format!("replica-{number}")}));
        match answer.status {
            200 => accepted.push(calotype_tests::client::text(&answer.json()["job_id"])),
            503 => assert!(!answer.header("retry-after").is_empty()),
            _ => panic!("{} {}", answer.status, answer.text()),
        }
    }
    accepted
}

const UPLOADED: u64 = 150_000;

/// Uploads images, one after the other, until it shall stop and an upload was acknowledged; the ids of those that were.
fn upload_until(client: &Client, stop: &AtomicBool) -> Vec<String> {
    let mut uploaded = Vec::new();
    while uploaded.is_empty() || !stop.load(Ordering::SeqCst) {
        let body = json!({"disk_format": "raw", "container_format": "bare"});
        let made = client.post("/v2/images", body);
        if made.status == 503 {
            continue;
        }
        let image = calotype_tests::client::text(&made.expect(201).json()["id"]);
        let sent = client.upload_stream(&image, Content::new(3, UPLOADED), UPLOADED);
        match sent.map(|answer| answer.status) {
            Ok(204) => uploaded.push(image),
            // Refused before its bytes were read, which the client may see as a connection that was closed.
            Ok(503) | Err(_) => {}
            Ok(status) => panic!("{status}"),
        }
    }
    uploaded
}
