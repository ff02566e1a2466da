//! Quotas: what is told of them, what they refuse, and that no crowd and no crash gets past them.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use calotype_tests::{Answer, Client, Content, Options, Server, client, config, database, until};
use reqwest::blocking::Body;
use serde_json::{Value, json};

use crate::command::{FORMATS, Terminal, exit};

const CLIENTS: u64 = 256;

/// What the operator is told of a project.
fn quota(admin: &Client, project: &str) -> Value {
    let answer = admin.get(&format!("/admin/v1/quotas/{project}"));
    answer.expect(200).json()
}

fn set(admin: &Client, project: &str, limits: Value) -> Value {
    let answer = admin.put(&format!("/admin/v1/quotas/{project}"), limits);
    answer.expect(200).json()
}

/// Used and reserved bytes.
fn bytes(admin: &Client, project: &str) -> (u64, u64) {
    let quota = quota(admin, project);
    let of = |name: &str| quota["bytes"][name].as_u64().expect("a number");
    (of("used"), of("reserved"))
}

/// Sends bytes without saying how many.
fn upload_chunked(client: &Client, image: &str, bytes: impl Read + Send + 'static) -> Answer {
    client.upload(image, Body::new(bytes))
}

fn delete(client: &Client, image: &str) {
    client.delete(&format!("/v2/images/{image}")).expect(204);
}

#[test]
fn a_quota_is_told_as_each_client_reads_it_and_set_by_who_runs_the_service() {
    let server = Server::with_defaults();
    let (client, admin) = (server.user(), server.admin());
    let project = client.project().to_owned();
    let shared = client.create_with(json!({"name": "shared", "visibility": "shared",
        "disk_format": "raw", "container_format": "bare"}));
    client.upload(&shared, vec![7; 3 << 20]).expect(204);
    for member in ["a1", "a2"] {
        let path = format!("/v2/images/{shared}/members");
        client.post(&path, json!({"member": member})).expect(200);
    }
    client.create("queued");
    let own = || client.get("/v1/cloudimages/quota").expect(200).json();
    let resource = |kind: &str, used: u64, quota: u64| json!({"type": kind, "used": used, "quota": quota, "min": 0, "max": i32::MAX});
    let told = own();
    let resources = [
        resource("image", 2, 1000),
        resource("image_shared", 1, 1000),
        resource("image_member", 2, 256),
    ];
    assert_eq!(told["quotas"]["resources"], json!(resources));
    let bytes =
        json!({"used": 3 << 20, "reserved": 0, "quota": null, "shared_bytes_count": "once"});
    assert_eq!(told["calotype"]["bytes"], bytes);
    let usage = || client.get("/v2/info/usage").expect(200).json()["usage"].clone();
    let count = |limit: i64| json!({"limit": limit, "usage": 2});
    let size = |limit: i64| json!({"limit": limit, "usage": 3});
    let expected = json!({"image_size_total": size(-1), "image_count_total": count(1000)});
    assert_eq!(usage(), expected);

    let limits = json!({"images": 2, "members": 2, "bytes": (4 << 20) + 1});
    let now = set(&admin, &project, limits);
    assert_eq!(now["images"], json!({"used": 2, "quota": 2, "own": true}));
    assert_eq!(now["project_id"], project.as_str());
    assert_eq!(now, quota(&admin, &project));
    assert_eq!(own()["quotas"]["resources"][0], resource("image", 2, 2));
    assert_eq!(own()["quotas"]["resources"][2]["quota"], 2);
    assert_eq!(own()["calotype"]["bytes"]["quota"], (4 << 20) + 1);
    let expected = json!({"image_size_total": size(4), "image_count_total": count(2)});
    assert_eq!(usage(), expected);
    // Each is refused what is full, in the form of the API that it asks.
    client
        .post("/v2/images", json!({"name": "third"}))
        .expect(413);
    client
        .copy(&shared, json!({"name": "third"}))
        .refused(400, "IMG.0015");
    let path = format!("/v2/images/{shared}/members");
    client.post(&path, json!({"member": "a3"})).expect(413);

    // Below what there is: what is there stays. What is not named stays as it was.
    let now = set(&admin, &project, json!({"images": 0, "bytes": -1}));
    assert_eq!(now["images"]["quota"], 0);
    assert_eq!(
        (&now["bytes"]["quota"], &now["bytes"]["own"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(now["members"]["own"], true);
    assert_eq!(client.list().len(), 2);
    let now = set(&admin, &project, json!({"images": null}));
    assert_eq!(
        (&now["images"]["quota"], &now["images"]["own"]),
        (&json!(1000), &json!(false))
    );
    let path = format!("/admin/v1/quotas/{project}");
    admin.delete(&path).expect(204);
    admin.delete(&path).refused(404, "IMG.0121");
    assert_eq!(quota(&admin, &project)["members"]["own"], false);
    client.create("third");

    for body in [
        json!({}),
        json!({"image": 1}),
        json!({"images": -2}),
        json!({"bytes": "1"}),
    ] {
        admin.put(&path, body).refused(400, "IMG.0001");
    }
    admin
        .get("/admin/v1/quotas/no%20id")
        .refused(404, "IMG.0121");
    client
        .put(&path, json!({"images": 9}))
        .refused(403, "IMG.0026");
    client.get(&path).refused(403, "IMG.0026");
    let lines = admin.audit("setQuota");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[1]["resource_id"], project.as_str());
    assert_eq!(
        lines[1]["detail"],
        json!({"images": 0, "bytes": "unlimited"})
    );
    assert_eq!(admin.audit("resetQuota").len(), 1);
    for resource in ["images", "members"] {
        assert!(refusals(&server, resource) > 0.0, "{resource}");
    }
}

#[test]
fn quotas_are_shown_set_and_reset_by_command() {
    let server = Server::embedded();
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        let project = format!("q-{format}");
        admin.ok(&["admin", "project", "create", &project]);
        let set = [
            "admin", "quota", "set", &project, "--images", "5", "--bytes", "2GiB",
        ];
        admin.ok(&set);
        let set = ["admin", "quota", "set", &project, "--members", "unlimited"];
        admin.ok(&set);
        let shown = admin.ok(&["admin", "quota", "show", &project]);
        let text = &shown.text;
        for word in ["members", "unlimited", "2147483648"] {
            let there = text.contains(word) || (format == "json" && word == "unlimited");
            assert!(there, "{word}: {text}");
        }
        admin.ok(&["admin", "quota", "set", &project, "--images", "default"]);
        admin.ok(&["admin", "quota", "reset", &project]);
        admin.fails(&["admin", "quota", "reset", &project], exit::NOT_FOUND);
        for wrong in [
            &["admin", "quota", "set", &project][..],
            &["admin", "quota", "set", &project, "--images", "many"],
        ] {
            let refused = admin.command(wrong).output().expect("the binary runs");
            assert_eq!(refused.status.code(), Some(exit::USAGE), "{wrong:?}");
        }
        let own = Terminal::new(&server, "calotype", format).ok(&["image", "quota"]);
        assert!(own.text.contains("image_shared"), "{}", own.text);
    }
}

#[test]
fn an_upload_over_the_limit_is_cut_and_leaves_nothing() {
    const MOST: u64 = 3_000_000;
    let server = Server::start(Options::config(config::bytes(MOST, false)));
    let (client, admin) = (server.user(), server.admin());
    let project = client.project();
    let first = client.image("first", 1, 1_000_000);
    let image = client.create("second");
    for known in [true, false] {
        let over = Content::new(2, 2_000_001);
        // A client that learns of the refusal while it sends may see the connection end instead.
        let answer = if known {
            client.upload_stream(&image, over, 2_000_001)
        } else {
            let request = client.request(reqwest::Method::PUT, &format!("/v2/images/{image}/file"));
            let request = request.header("Content-Type", "application/octet-stream");
            client::try_send(request.body(Body::new(over)))
        };
        if let Ok(answer) = answer {
            answer.expect(413);
        }
        until("the upload to have ended", || {
            (client.show(&image)["status"] == "queued").then_some(())
        });
        assert_eq!(bytes(&admin, project), (1_000_000, 0));
    }
    // To the byte, whether it is known or not how many will come.
    for known in [true, false] {
        let fits = Content::new(2, 2_000_000);
        if known {
            client
                .upload_stream(&image, fits, 2_000_000)
                .expect("an answer")
                .expect(204);
        } else {
            let image = client.create("third");
            upload_chunked(&client, &image, fits).expect(204);
            upload_chunked(&client, &client.create("empty"), std::io::empty()).expect(204);
            let full = client.create("full");
            let answer = client.upload(&full, "x").expect(413);
            assert!(answer.text().contains("quota"), "{answer}");
            delete(&client, &image);
        }
        assert_eq!(bytes(&admin, project).1, 0);
        delete_all_but(&client, &[&first]);
        assert_eq!(bytes(&admin, project), (1_000_000, 0));
        if known {
            continue;
        }
        delete(&client, &first);
        assert_eq!(bytes(&admin, project), (0, 0));
    }
    assert!(refusals(&server, "bytes") > 0.0);
    assert_eq!(server.staged(), 0);
    admin.verify_rows();
}

/// How often a quota of this was in the way.
fn refusals(server: &Server, resource: &str) -> f64 {
    let label = format!("resource=\"{resource}\"");
    server.metric("calotype_quota_refusals_total", &[&label])
}

fn delete_all_but(client: &Client, kept: &[&str]) {
    for image in client.list() {
        let id = client::text(&image["id"]);
        if !kept.contains(&id.as_str()) {
            delete(client, &id);
        }
    }
}

#[test]
fn a_blob_that_images_share_is_paid_for_once_or_for_each_of_them_as_it_is_set() {
    for each in [false, true] {
        let server = Server::start(Options::config(config::bytes(250_000, each)));
        let (client, admin) = (server.user(), server.admin());
        let project = client.project();
        let source = client.image("source", 1, 100_000);
        let key = client.create_key("k");
        let replica = client.replicate(&source, "plain");
        let paid = if each { 200_000 } else { 100_000 };
        assert_eq!(bytes(&admin, project), (paid, 0));
        let over = client.copy(&source, json!({"name": "third"}));
        let sealed = |name: &str| client.copy(&source, json!({"name": name, "cmk_id": key}));
        if each {
            over.refused(400, "IMG.0059");
            sealed("sealed").refused(400, "IMG.0059");
        } else {
            let job = client::text(&over.expect(200).json()["job_id"]);
            assert_eq!(client.job(&job).status(), "SUCCESS");
            let job = client::text(&sealed("sealed").expect(200).json()["job_id"]);
            assert_eq!(client.job(&job).status(), "SUCCESS");
            assert_eq!(bytes(&admin, project), (200_000, 0));
            sealed("another").refused(400, "IMG.0059");
        }
        assert_eq!(quota(&admin, project)["bytes"]["reserved"], 0);
        // The source goes; who shares its bytes pays on.
        let before = bytes(&admin, project).0;
        delete(&client, &source);
        let paid = if each { before - 100_000 } else { before };
        assert_eq!(bytes(&admin, project), (paid, 0));
        assert_eq!(client.show(&replica)["status"], "active");
        admin.verify();
        delete_all_but(&client, &[]);
        assert_eq!(bytes(&admin, project), (0, 0));
        admin.verify();
    }
}

/// A body that begins, and goes on when it is told to.
struct Stalled {
    head: std::io::Cursor<Vec<u8>>,
    gate: Receiver<()>,
}

impl Stalled {
    fn new(head: usize) -> (Sender<()>, Self) {
        let (open, gate) = channel();
        let head = std::io::Cursor::new(vec![7; head]);
        (open, Self { head, gate })
    }
}

impl Read for Stalled {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.head.read(buffer)?;
        if read == 0 {
            // Whatever the gate says, nothing more comes.
            let _ = self.gate.recv();
        }
        Ok(read)
    }
}

#[test]
fn an_upload_that_dies_with_the_server_gives_back_what_it_had_reserved() {
    const MOST: u64 = 40_000_000;
    // One of several nodes would let the others' leases end first.
    let mut server = Server::start(Options::config(config::bytes(MOST, false)).embedded());
    for known in [true, false] {
        let client = server.user();
        let image = client.create("killed");
        let (open, body) = Stalled::new(100_000);
        let uploader = {
            let (client, image) = (client.clone(), image.clone());
            thread::spawn(move || {
                let path = format!("/v2/images/{image}/file");
                let request = client.request(reqwest::Method::PUT, &path);
                let request = request.header("Content-Type", "application/octet-stream");
                let body = if known {
                    Body::sized(body, MOST)
                } else {
                    Body::new(body)
                };
                client::try_send(request.body(body)).is_ok()
            })
        };
        let admin = server.admin();
        let reserved = until("bytes to be reserved", || {
            let (used, reserved) = bytes(&admin, client.project());
            assert_eq!(used, 0);
            (reserved >= 100_000).then_some(reserved)
        });
        assert_eq!(reserved == MOST, known, "{reserved}");
        if known {
            let other = client.create("other");
            client.upload(&other, "x").expect(413);
            delete(&client, &other);
        }
        server.kill9();
        drop(open);
        assert!(!uploader.join().expect("the uploader"));
        server.restart();
        let (client, admin) = (server.user(), server.admin());
        assert_eq!(bytes(&admin, client.project()), (0, 0));
        assert_eq!(client.show(&image)["status"], "queued");
        client.upload(&image, vec![7; 100]).expect(204);
        assert_eq!(bytes(&admin, client.project()), (100, 0));
        delete(&client, &image);
        admin.verify();
    }
}

#[test]
fn deleting_an_image_while_it_is_uploaded_frees_nothing_before_the_upload_has_ended() {
    let server = Server::start(Options::config(config::bytes(1_000_000, false)));
    let (client, admin) = (server.user(), server.admin());
    let image = client.create("dodge");
    let (open, body) = Stalled::new(1000);
    let uploader = {
        let (client, image) = (client.clone(), image.clone());
        thread::spawn(move || {
            let answer = client.upload_stream(&image, body, 1_000_000);
            answer.is_ok_and(|answer| answer.status == 204)
        })
    };
    until("the upload to begin", || {
        (bytes(&admin, client.project()).1 == 1_000_000).then_some(())
    });
    delete(&client, &image);
    let other = client.create("other");
    client.upload(&other, "x").expect(413);
    assert_eq!(bytes(&admin, client.project()), (0, 1_000_000));
    drop(open);
    assert!(!uploader.join().expect("the uploader"));
    until("the reservation to end", || {
        (bytes(&admin, client.project()) == (0, 0)).then_some(())
    });
    client.upload(&other, "x").expect(204);
    admin.verify();
}

/// The refusals that a crowd at its limits may meet, beside a wait for the catalog.
fn is_due(answer: &Answer) -> bool {
    let text = answer.text();
    let codes = ["IMG.0015", "IMG.0059", "IMG.0060"];
    answer.status == 413 || codes.iter().any(|code| text.contains(code))
}

/// Asks again where the catalog was too busy to answer in time.
fn patient(mut ask: impl FnMut() -> Answer) -> Answer {
    until("an answer", || {
        let answer = ask();
        (answer.status != 503).then_some(answer)
    })
}

/// What one of the crowd does: it makes an image, gives it bytes, replicates it twice, and deletes what chance says.
fn round(client: &Client, key: &str, n: u64) {
    let made = patient(|| {
        client.post(
            "/v2/images",
            json!({"name": format!("i{n}"), "disk_format": "raw", "container_format": "bare"}),
        )
    });
    if made.status != 201 {
        assert!(is_due(&made), "{made}");
        return;
    }
    let image = client::text(&made.json()["id"]);
    if n.is_multiple_of(5) {
        dodge(client, &image, n);
        return;
    }
    let length = 1 + n * 977 % 9000;
    let sent = patient(|| {
        let content = Content::bytes(n, length);
        match n % 2 {
            0 => client.upload(&image, content),
            _ => upload_chunked(client, &image, std::io::Cursor::new(content)),
        }
    });
    if sent.status != 204 {
        assert!(is_due(&sent), "{sent}");
    }
    for body in [
        json!({"name": "plain"}),
        json!({"name": "sealed", "cmk_id": key}),
    ] {
        let asked = patient(|| client.copy(&image, body.clone()));
        let unsent = sent.status != 204 && asked.text().contains("IMG.0046");
        assert!(asked.status == 200 || unsent || is_due(&asked), "{asked}");
    }
    if !n.is_multiple_of(3) {
        let deleted = patient(|| client.delete(&format!("/v2/images/{image}")));
        assert_eq!(deleted.status, 204, "{deleted}");
    }
}

/// Deletes an image while it is uploaded: whoever comes first, what the upload took is given back.
fn dodge(client: &Client, image: &str, n: u64) {
    thread::scope(|scope| {
        let deletion = scope.spawn(|| patient(|| client.delete(&format!("/v2/images/{image}"))));
        let content = Content::bytes(n, 5000);
        let sent = client.upload(image, content);
        let known = [204, 404, 409, 410, 413, 503];
        assert!(known.contains(&sent.status), "{sent}");
        deletion.join().expect("the deletion").expect(204);
    });
}

fn a_crowd_stays_within_its_quota(servers: &[Server]) {
    let (first, last) = (&servers[0], &servers[servers.len() - 1]);
    let (client, admin) = (first.user(), first.admin());
    let key = client.create_key("k");
    let project = client.project().to_owned();
    let (most, images) = (400_000, 150);
    set(&admin, &project, json!({"images": images, "bytes": most}));
    let done = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let told = patient(|| admin.get(&format!("/admin/v1/quotas/{project}")));
                let told = told.expect(200).json();
                let of = |name: &str| told["bytes"][name].as_u64().expect("a number");
                assert!(of("used") + of("reserved") <= most, "{told}");
                assert!(told["images"]["used"].as_u64() <= Some(images), "{told}");
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let crowd: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let client = client.at([first, last][(n % 2) as usize].base());
                let key = &key;
                scope.spawn(move || round(&client, key, n))
            })
            .collect();
        let outcomes: Vec<_> = crowd.into_iter().map(|one| one.join()).collect();
        done.store(true, Ordering::SeqCst);
        watcher.join().expect("never over");
        for outcome in outcomes {
            outcome.expect("each refusal is due");
        }
    });
    assert!(looks.load(Ordering::SeqCst) > 10);
    client.idle();
    // The ledger is what there is: images, their sizes, and each blob once.
    let told = quota(&admin, &project);
    let left = client.list();
    assert_eq!(told["images"]["used"], left.len());
    let sizes = left
        .iter()
        .filter_map(|image| image["__image_size"].as_str());
    let sum: u64 = sizes.map(|size| size.parse::<u64>().expect("a size")).sum();
    assert_eq!(told["bytes"]["of_images"], sum);
    assert_eq!(told["bytes"]["reserved"], 0, "{told}");
    assert!(told["bytes"]["used"].as_u64() > Some(0), "{told}");
    admin.collected();
    admin.verify();
    // What is left fits to the byte.
    let room = most - told["bytes"]["used"].as_u64().expect("a number");
    set(&admin, &project, json!({"images": images + 2}));
    client
        .upload(&client.create("over"), vec![7; room as usize + 1])
        .expect(413);
    client
        .upload(&client.create("fits"), vec![7; room as usize])
        .expect(204);
    delete_all_but(&client, &[]);
    assert_eq!(bytes(&admin, &project), (0, 0));
    admin.collected();
    admin.verify();
}

#[test]
fn two_hundred_and_fifty_six_clients_at_once_never_pass_their_quota_on_sqlite() {
    let text = format!("{}{}", config::limits(10, 200), config::deletion_grace(1));
    let servers = [Server::start(Options::config(text).embedded())];
    a_crowd_stays_within_its_quota(&servers);
    // Nothing is left of what was refused, cut, deleted midway or deleted.
    until("the store to be empty", || {
        (servers[0].stored() + servers[0].staged() == 0).then_some(())
    });
}

#[test]
fn two_hundred_and_fifty_six_clients_of_two_servers_never_pass_their_quota_on_postgresql() {
    let url = database::fresh("quotas_crowd");
    let store = tempfile::tempdir().expect("a directory");
    let text = [
        config::shared(&url, store.path()),
        config::limits(10, 200),
        config::deletion_grace(1),
    ];
    let text = text.join("\n");
    let servers = [(), ()].map(|()| Server::start(Options::config(text.clone())));
    a_crowd_stays_within_its_quota(&servers);
}
