//! Killed at any instant, the server comes back with everything that it had acknowledged, and with nothing
//! half-made: invariants 1, 3, 5, 6, 8 and 10 of the design, after SIGKILL.
//!
//! `CALOTYPE_CRASHES` sets how many kills there are, `CALOTYPE_SEED` which; the seed is printed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use calotype_tests::content::next;
use calotype_tests::{Client, Content, Digests, Options, Server, config, database, until};
use reqwest::Method;
use reqwest::blocking::Body;
use serde_json::json;

/// What the server acknowledged: the bytes of images that became active, and the jobs that it accepted.
#[derive(Default)]
struct Acknowledged {
    images: BTreeMap<String, Digests>,
    jobs: BTreeMap<String, Digests>,
    deleted: Vec<String>,
}

#[test]
fn nothing_that_was_acknowledged_is_lost_and_nothing_half_made_stays_after_kills() {
    let mut server = Server::start(Options::config(config::limits(100_000, 100)));
    // Engines take their time, and so do the starts of five processes.
    let (usual, within) = match server.is_on_engines() {
        true => (6, 4_000_000),
        false => (90, 120_000),
    };
    let kills = number("CALOTYPE_CRASHES").unwrap_or(usual);
    let mut seed = number("CALOTYPE_SEED").unwrap_or(20_261_123);
    println!("CALOTYPE_SEED={seed} CALOTYPE_CRASHES={kills}");
    let acknowledged = Mutex::new(Acknowledged::default());
    let mut jobs = 0;
    // Tokens outlive the process; its address does not.
    let (mut client, mut admin) = (server.user(), server.admin());
    for kill in 0..kills {
        let random = next(&mut seed);
        let delay = Duration::from_micros(next(&mut seed) % within);
        // Past a balancer, which would answer for the dead.
        let nodes: Vec<Client> = server.bases().map(|node| client.at(node)).collect();
        std::thread::scope(|scope| {
            for (worker, client) in (0..3_u64).zip(nodes.iter().cycle()) {
                let (client, acknowledged) = (client.clone(), &acknowledged);
                scope.spawn(move || work(&client, random ^ (worker << 32), acknowledged));
            }
            std::thread::sleep(delay);
            server.kill9();
        });
        server.restart();
        (client, admin) = (client.at(server.base()), admin.at(server.base()));
        // Of several processes others might be alive: what the dead have begun ends with its lease.
        if !server.is_on_engines() {
            assert_eq!(server.staged(), 0, "nothing unfinished stays");
        }
        admin.verify_rows();
        // Reading every byte after every kill would be all that the test does.
        if kill % 20 == 19 || kill + 1 == kills {
            jobs += acknowledged.lock().expect("no worker is left").jobs.len();
            check(&client, &acknowledged);
            until("nothing unfinished to stay", || {
                (server.staged() == 0).then_some(())
            });
            server.verify_stopped();
            server.restart();
            (client, admin) = (client.at(server.base()), admin.at(server.base()));
        }
    }
    println!("{jobs} jobs were acknowledged");
    assert!(jobs > 0, "nothing was acknowledged: nothing was tested");
}

#[test]
fn an_accepted_replication_ends_in_success_whatever_instant_the_server_is_killed_at() {
    let mut server = Server::start(Options::config(config::limits(100_000, 1000)));
    let usual = if server.is_on_engines() { 6 } else { 60 };
    let kills = number("CALOTYPE_CRASHES").unwrap_or(usual);
    kill_while_replicating(&mut server, kills);
    server.verify_stopped();
}

#[test]
fn an_accepted_replication_ends_in_success_although_its_server_on_postgresql_is_killed() {
    let kills = number("CALOTYPE_CRASHES").unwrap_or(15);
    // Another server might be alive, so what a killed one had claimed is due only when its lease ends.
    let text = [
        config::postgres(&database::fresh("crash")),
        config::limits(100_000, 1000),
        config::jobs(4, 3),
    ];
    let mut server = Server::start(Options::config(text.concat()));
    kill_while_replicating(&mut server, kills);
    server.verify();
}

#[test]
fn a_root_key_is_rotated_whole_whatever_instant_the_server_is_killed_at() {
    let kills = number("CALOTYPE_CRASHES").unwrap_or(40);
    let mut seed = number("CALOTYPE_SEED").unwrap_or(11);
    println!("CALOTYPE_SEED={seed} CALOTYPE_CRASHES={kills}");
    // Of a server that has its root keys in a file of its own.
    let mut server = Server::start(Options::config(config::keys(1000)).embedded());
    let (mut client, mut admin) = (server.user(), server.admin());
    let image = client.image("kept", 1, 100_000);
    // Enough for several steps of rewrapping.
    let mut sealed = Vec::new();
    for number in 0..220 {
        let key = client.create_key(&format!("k{number}"));
        let made = client.kms(
            "create-datakey",
            json!({"key_id": key, "datakey_length": 512}),
        );
        let made = made.expect(200).json();
        sealed.push((key, made["cipher_text"].clone(), made["plain_text"].clone()));
    }
    for kill in 0..kills {
        // A file takes so many root keys: those that are done with are retired now and then.
        if kill % 8 == 7 {
            retire(&admin);
        }
        let rotate = admin.request(Method::POST, "/admin/v1/root-key/rotate");
        let asked = std::thread::spawn(move || calotype_tests::client::try_send(rotate));
        std::thread::sleep(Duration::from_micros(next(&mut seed) % 60_000));
        server.restart();
        drop(asked.join().expect("no panic"));
        (client, admin) = (client.at(server.base()), admin.at(server.base()));
    }
    retire(&admin);
    server.restart();
    client = client.at(server.base());
    let file = std::fs::read_to_string(server.data().join("root.key")).expect("the root keys");
    assert_eq!(file.lines().count(), 1);
    for (key, cipher, plain) in &sealed {
        let body = json!({"key_id": key, "cipher_text": cipher, "datakey_cipher_length": 64});
        let opened = client.kms("decrypt-datakey", body).expect(200).json();
        assert_eq!(&opened["data_key"], plain);
    }
    let wanted = Digests::of(Content::new(1, 100_000));
    assert_eq!(client.download(&image), wanted);
    let names = std::fs::read_dir(server.data()).expect("the data directory");
    let names = names.flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names
        .filter(|name| name.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "with root keys in them: {left:?}");
}

/// Waits until everything is under the current root key, and retires the others.
fn retire(admin: &Client) {
    until("everything to be rewrapped", || {
        let answer = admin.post("/admin/v1/root-key/retire", serde_json::Value::Null);
        (answer.status == 200).then_some(())
    });
}

fn kill_while_replicating(server: &mut Server, kills: u64) {
    let mut seed = number("CALOTYPE_SEED").unwrap_or(7);
    println!("CALOTYPE_SEED={seed} CALOTYPE_CRASHES={kills}");
    let (mut client, mut admin) = (server.user(), server.admin());
    let wanted = Digests::of(Content::new(1, 300_000));
    let source = client.image("source", 1, 300_000);
    let mut jobs = Vec::new();
    for _ in 0..kills {
        for _ in 0..3 {
            let accepted = client.copy(&source, json!({"name": "replica"})).expect(200);
            jobs.push(
                accepted.json()["job_id"]
                    .as_str()
                    .expect("a job_id")
                    .to_owned(),
            );
        }
        std::thread::sleep(Duration::from_micros(next(&mut seed) % 8000));
        server.restart();
        (client, admin) = (client.at(server.base()), admin.at(server.base()));
        admin.verify_rows();
        admin.verify();
    }
    let mut made = Vec::new();
    for id in &jobs {
        let job = client.job(id);
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        made.push(job.image());
    }
    assert_eq!(client.download(&made[0]), wanted);
    made.sort();
    made.dedup();
    assert_eq!(made.len(), jobs.len(), "each job made one image");
    assert_eq!(client.list().len(), made.len() + 1, "and no other");
}

/// Creates, uploads, replicates and deletes until the server is gone, and notes what it acknowledged.
fn work(client: &Client, mut random: u64, acknowledged: &Mutex<Acknowledged>) {
    let note = |with: &dyn Fn(&mut Acknowledged)| {
        with(
            &mut acknowledged
                .lock()
                .expect("no worker panics while it notes"),
        );
    };
    loop {
        let (seed, length) = (next(&mut random), next(&mut random) % 400_000);
        let made = calotype_tests::client::try_send(
            client
                .request(Method::POST, "/v2/images")
                .header("Content-Type", "application/json")
                .body(
                    json!({"name": "w", "disk_format": "raw", "container_format": "bare"})
                        .to_string(),
                ),
        );
        let Ok(made) = made else { return };
        let image = made.expect(201).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let Ok(answer) = client.upload_stream(&image, Content::new(seed, length), length) else {
            return;
        };
        answer.expect(204);
        let digests = Digests::of(Content::new(seed, length));
        note(&|it| drop(it.images.insert(image.clone(), digests.clone())));
        let Ok(answer) = try_json(
            client,
            Method::POST,
            &format!("/v1/cloudimages/{image}/copy"),
        ) else {
            return;
        };
        let job = answer.expect(200).json()["job_id"]
            .as_str()
            .expect("a job_id")
            .to_owned();
        note(&|it| drop(it.jobs.insert(job.clone(), digests.clone())));
        if next(&mut random).is_multiple_of(3) {
            // Not known to be there from here on: an answer may be lost after its deletion.
            note(&|it| drop(it.images.remove(&image)));
            let Ok(answer) = try_json(client, Method::DELETE, &format!("/v2/images/{image}"))
            else {
                return;
            };
            answer.expect(204);
            note(&|it| it.deleted.push(image.clone()));
        }
    }
}

fn try_json(
    client: &Client,
    method: Method,
    path: &str,
) -> Result<calotype_tests::Answer, reqwest::Error> {
    let request = client
        .request(method, path)
        .header("Content-Type", "application/json");
    calotype_tests::client::try_send(request.body(Body::from(r#"{"name":"replica"}"#)))
}

fn check(client: &Client, acknowledged: &Mutex<Acknowledged>) {
    {
        let mut acknowledged = acknowledged.lock().expect("no worker is left");
        for (job, wanted) in std::mem::take(&mut acknowledged.jobs) {
            let job = client.job(&job);
            assert_eq!(job.status(), "SUCCESS", "{}", job.document);
            acknowledged.images.insert(job.image(), wanted);
        }
        for (image, wanted) in std::mem::take(&mut acknowledged.images) {
            assert_eq!(&client.download(&image), &wanted, "{image}");
            client.delete(&format!("/v2/images/{image}")).expect(204);
        }
        for image in acknowledged.deleted.drain(..) {
            client.get(&format!("/v2/images/{image}")).expect(404);
        }
    }
    client.idle();
    // What is left was never acknowledged: each is whole or without bytes, and each can be deleted.
    for image in client.list() {
        let id = image["id"].as_str().expect("an id");
        let status = until("no image to be saving for ever", || {
            let status = client.show(id)["status"].clone();
            (status != "saving").then_some(status)
        });
        if status == "active" {
            assert_eq!(client.download(id).sha512, client.show(id)["os_hash_value"]);
        } else {
            assert_eq!(status, "queued", "{image}");
        }
        client.delete(&format!("/v2/images/{id}")).expect(204);
    }
    assert!(client.list().is_empty());
}

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}
