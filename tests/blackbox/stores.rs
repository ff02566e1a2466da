//! Several stores: where images' bytes go, and moving them from one to another under use, kills and deletions.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use calotype_tests::content::{expect_same, next};
use calotype_tests::{Answer, Client, Content, Digests, Options, Server, config, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::command::{Terminal, exit};
use crate::crash::number;
use crate::reseal::{MIB, SEGMENT, UNBOUNDED, segments, under, upload};
use crate::reseal_kills::attempts;

const TWO: &str =
    "[store.main]\n[store.cold]\ndescription = \"Slow disks\"\n[stores]\ndefault = \"main\"\n";
const TO_COLD: &str = "[store.main]\n[store.cold]\n[stores]\ndefault = \"cold\"\n";

/// What leaves no bytes behind for long.
fn two_stores(more: &str) -> Options {
    Options::config(format!("{}{more}\n{TWO}", config::deletion_grace(0)))
}

/// Names of committed and of staged bytes in a store of files.
fn held(directory: PathBuf) -> usize {
    let list = |path: PathBuf| std::fs::read_dir(path).expect("the store").flatten();
    let prefixes = list(directory.join("blobs"));
    let stored: usize = prefixes.map(|prefix| list(prefix.path()).count()).sum();
    stored + list(directory.join("staged")).count()
}

fn in_main(server: &Server) -> usize {
    held(server.data().join("blobs"))
}

fn in_cold(server: &Server) -> usize {
    held(server.data().join("stores").join("cold"))
}

fn until_held(server: &Server, main: usize, cold: usize) {
    until("what is not needed to go", || {
        ((in_main(server), in_cold(server)) == (main, cold)).then_some(())
    });
}

pub(crate) fn begin_move(admin: &Client, image: &str, store: &str) -> String {
    let path = format!("/admin/v1/images/{image}/move");
    let accepted = admin
        .post(&path, json!({"store": store}))
        .expect(202)
        .json();
    accepted["job_id"].as_str().expect("a job").to_owned()
}

pub(crate) fn move_to(admin: &Client, image: &str, store: &str) {
    let job = admin.job(&begin_move(admin, image, store));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
}

/// The store that a record says an image to be in; the list says the same.
fn store_of(client: &Client, image: &str) -> Value {
    let shown = client.show(image)["stores"].clone();
    let listed = client.get("/v2/images?limit=1000").expect(200).json();
    let listed = listed["images"].as_array().expect("a list").iter();
    let mut listed = listed.filter(|listed| listed["id"] == image);
    assert_eq!(listed.next().expect("it is listed")["stores"], shown);
    shown
}

#[test]
fn images_are_where_their_uploaders_want_them_and_no_store_that_is_not_there_is_taken() {
    let server = Server::start(two_stores(""));
    let client = server.user();
    let listed = client.get("/v2/info/stores").expect(200).json();
    let expected = json!({"stores": [
        {"id": "cold", "description": "Slow disks"}, {"id": "main", "default": "true"},
    ]});
    assert_eq!(listed, expected);
    let image = client.create("chosen");
    let send = |store: &str| {
        let path = format!("/v2/images/{image}/file");
        let request = client
            .request(Method::PUT, &path)
            .header("Content-Type", "application/octet-stream")
            .header("X-Image-Meta-Store", store);
        calotype_tests::client::send(request.body(Content::bytes(1, 100_000)))
    };
    for store in ["warm", "Cold", "../blobs", ""] {
        send(store).expect(400);
        assert_eq!(client.show(&image)["status"], "queued", "{store}");
    }
    assert_eq!(in_main(&server) + in_cold(&server), 0);
    send("cold").expect(204);
    assert_eq!(store_of(&client, &image), "cold");
    let wanted = Digests::of(Content::new(1, 100_000));
    assert_eq!(client.download(&image), wanted);
    assert_eq!((in_main(&server), in_cold(&server)), (0, 1));
    let other = client.image("usual", 2, 100_000);
    assert_eq!(store_of(&client, &other), "main");
    let plain = client.replicate(&image, "plain");
    assert_eq!(store_of(&client, &plain), "cold", "it shares the bytes");
    let sealed = client.replicate_with(&image, under(&client.create_key("key")));
    assert_eq!(store_of(&client, &sealed), "main", "its bytes are new");
    assert_eq!(client.download(&sealed), wanted);

    client.get("/v2/info/stores/detail").expect(403);
    let detail = server.admin().get("/v2/info/stores/detail").expect(200);
    let detail = detail.json();
    assert_eq!(detail["stores"][0]["properties"]["blobs"], 1, "{detail}");
    assert_eq!(detail["stores"][1]["properties"]["blobs"], 2, "{detail}");
    server.verify();
    for image in [&image, &plain] {
        assert_eq!(in_cold(&server), 1);
        client.delete(&format!("/v2/images/{image}")).expect(204);
    }
    until_held(&server, 2, 0);
    server.verify();
}

#[test]
fn a_replica_under_a_key_and_an_import_are_where_they_are_wanted() {
    let server = Server::start(two_stores(""));
    let client = server.user();
    let (key, source) = (client.create_key("key"), client.image("source", 1, 100_000));
    let object = server.put_object("disk.raw", Content::new(1, 100_000));
    let copy = |mut body: Value, store: &str| {
        body["store"] = store.into();
        client.copy(&source, body)
    };
    let plain = json!({"name": "plain"});
    copy(under(&key), "warm").refused(400, "IMG.0001");
    copy(plain.clone(), "cold").refused(400, "IMG.0001");
    let import = client.import(&object, json!({"store": "warm"}));
    import.refused(400, "IMG.0001");
    let empty = client.create("empty");
    let register = |store: &str| {
        let path = format!("/v1/cloudimages/{empty}/upload");
        client.put(&path, json!({"image_url": object, "store": store}))
    };
    register("warm").refused(400, "IMG.0001");
    assert_eq!(client.show(&empty)["status"], "queued");
    assert_eq!(client.list().len(), 2, "nothing was made");
    assert_eq!((in_main(&server), in_cold(&server)), (1, 0));

    let wanted = Digests::of(Content::new(1, 100_000));
    let made = |accepted: Answer| {
        let job = accepted.expect(200).json()["job_id"].clone();
        let job = client.job(job.as_str().expect("a job"));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        let image = job.image();
        assert_eq!(client.download(&image), wanted);
        image
    };
    for (accepted, store) in [
        (copy(under(&key), "cold"), "cold"),
        (copy(under(&key), "main"), "main"),
        (copy(plain, "main"), "main"),
        (client.import(&object, json!({"store": "cold"})), "cold"),
        (register("cold"), "cold"),
    ] {
        assert_eq!(store_of(&client, &made(accepted)), store);
    }
    assert_eq!((in_main(&server), in_cold(&server)), (2, 3));
    server.verify();
}

#[test]
fn the_command_puts_images_where_they_are_wanted() {
    let server = Server::start(two_stores(""));
    let client = server.user();
    let key = client.create_key("key");
    let object = server.put_object("disk.raw", Content::new(1, 100_000));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("disk.raw");
    std::fs::write(&file, Content::bytes(1, 100_000)).expect("room");
    let file = file.to_string_lossy();
    let terminal = Terminal::new(&server, "calotype", "json");
    let create = ["image", "create", "created", "--file", &file];
    terminal.ok(&[&create[..], &["--store", "cold"]].concat());
    let replicate = ["image", "replicate", "created", "--name", "replicated"];
    let under_key = ["--key", &key, "--wait", "--store", "cold"];
    terminal.ok(&[&replicate[..], &under_key].concat());
    let import = ["image", "import", "imported", "--bucket-object", &object];
    let small = ["--min-disk", "1", "--wait", "--store", "cold"];
    terminal.ok(&[&import[..], &small].concat());
    client.create("registered");
    let register = [
        "image",
        "register",
        "registered",
        "--bucket-object",
        &object,
    ];
    terminal.ok(&[&register[..], &["--wait", "--store", "cold"]].concat());
    let images = client.list();
    assert_eq!(images.len(), 4);
    for image in images {
        let id = image["id"].as_str().expect("an id");
        assert_eq!(store_of(&client, id), "cold", "{image}");
    }
    assert_eq!((in_main(&server), in_cold(&server)), (0, 4));
    let warm = [&create[..], &["--store", "warm"]].concat();
    terminal.fails(&warm, exit::REFUSED);
    assert_eq!(client.list().len(), 4, "no image without bytes is left");
}

#[test]
fn a_move_takes_all_images_of_the_bytes_along_and_back_and_leaves_nothing() {
    let server = Server::start(two_stores(""));
    let (client, admin) = (server.user(), server.admin());
    for length in [0, SEGMENT + MIB] {
        let image = client.image("source", length, length);
        let replicas = [(), ()].map(|()| client.replicate(&image, "plain"));
        let wanted = Digests::of(Content::new(length, length));
        let before = client.show(&image);
        for store in ["cold", "main"] {
            move_to(&admin, &image, store);
            for image in replicas.iter().chain([&image]) {
                assert_eq!(store_of(&client, image), store);
                assert_eq!(client.download(image), wanted, "{length} bytes");
            }
            let (main, cold) = if store == "main" { (1, 0) } else { (0, 1) };
            until_held(&server, main, cold);
            server.verify();
        }
        assert_eq!(client.show(&image), before, "nothing has changed");
        for image in replicas.iter().chain([&image]) {
            client.delete(&format!("/v2/images/{image}")).expect(204);
        }
        until_held(&server, 0, 0);
    }
    let moves = admin.audit("moveImage");
    assert_eq!(moves.len(), 4);
}

#[test]
fn moves_that_can_not_be_are_refused_and_change_nothing() {
    let server = Server::start(two_stores(""));
    let (client, admin) = (server.user(), server.admin());
    let image = client.image("image", 1, 1000);
    let queued = client.create("queued");
    let path = |image: &str| format!("/admin/v1/images/{image}/move");
    let cold = || json!({"store": "cold"});
    let nowhere = "11111111-2222-4333-8444-555555555555";
    client.post(&path(&image), cold()).expect(403);
    admin.post(&path(nowhere), cold()).expect(404);
    admin.post(&path("x"), cold()).expect(404);
    admin.post(&path(&queued), cold()).expect(409);
    admin
        .post(&path(&image), json!({"store": "main"}))
        .expect(409);
    for body in [
        json!({}),
        json!({"store": "warm"}),
        json!({"store": 1}),
        json!({"store": "cold", "then": 1}),
    ] {
        admin.post(&path(&image), body).expect(400);
    }
    let blob = format!("/admin/v1/blobs/{nowhere}/move");
    admin.post(&blob, cold()).expect(404);
    admin.get("/admin/v1/stores/warm/blobs").expect(404);
    client.get("/admin/v1/stores/main/blobs").expect(403);
    let blobs = admin.get("/admin/v1/stores/main/blobs").expect(200).json();
    assert_eq!(blobs["blobs"][0]["images"], 1, "{blobs}");
    assert_eq!(store_of(&client, &image), "main");
    assert_eq!((in_main(&server), in_cold(&server)), (1, 0));
    server.verify();
}

#[test]
fn who_reads_an_image_reads_on_while_it_is_moved_there_and_back() {
    const SEGMENTS: u64 = 16;
    let server = Server::start(two_stores(""));
    let (client, admin) = (server.user(), server.admin());
    let image = upload(&client, 1, SEGMENTS);
    let request = client.request(Method::GET, &format!("/v2/images/{image}/file"));
    let mut reader = request.send().expect("an answer");
    let mut first = vec![0; 1000];
    reader.read_exact(&mut first).expect("the first bytes");
    for (store, main, cold) in [("cold", 0, 1), ("main", 1, 0)] {
        move_to(&admin, &image, store);
        until_held(&server, main, cold);
    }
    expect_same(first.as_slice().chain(reader), segments(1, SEGMENTS));
    server.verify();
}

#[test]
fn an_image_whose_key_is_closed_is_moved_as_it_is_and_read_when_the_key_is_back() {
    let server = Server::start(two_stores(""));
    let (client, admin) = (server.user(), server.admin());
    let key = client.create_key("key");
    let source = client.image("source", 1, 3_000_000);
    let sealed = client.replicate_with(&source, under(&key));
    client.key_call("disable-key", &key);
    move_to(&admin, &sealed, "cold");
    assert_eq!(store_of(&client, &sealed), "cold");
    client.get(&format!("/v2/images/{sealed}/file")).expect(403);
    client.key_call("enable-key", &key);
    let wanted = Digests::of(Content::new(1, 3_000_000));
    assert_eq!(client.download(&sealed), wanted);
    until_held(&server, 1, 1);
    server.verify();
}

#[test]
fn an_image_that_is_deleted_while_it_is_moved_leaves_nothing_anywhere() {
    const SEGMENTS: u64 = 8;
    let server = Server::start(two_stores(&config::reseal_pace(UNBOUNDED, 256 * MIB, 2)));
    let (client, admin) = (server.user(), server.admin());
    let image = upload(&client, 1, SEGMENTS);
    let job = begin_move(&admin, &image, "cold");
    until("the move to be on", || {
        (admin.progress(&job)["bytes_done"].as_u64() >= Some(SEGMENT)).then_some(())
    });
    client.delete(&format!("/v2/images/{image}")).expect(204);
    admin.job(&job);
    until_held(&server, 0, 0);
    server.verify();
}

#[test]
fn a_move_that_is_cancelled_leaves_the_image_where_it_was_and_nothing_elsewhere() {
    const SEGMENTS: u64 = 8;
    let server = Server::start(two_stores(&config::reseal_pace(UNBOUNDED, 32 * MIB, 2)));
    let (client, admin) = (server.user(), server.admin());
    let image = upload(&client, 1, SEGMENTS);
    let job = begin_move(&admin, &image, "cold");
    until("the move to be on", || {
        (admin.progress(&job)["bytes_done"].as_u64() >= Some(SEGMENT)).then_some(())
    });
    let path = format!("/admin/v1/images/{image}/move");
    admin.post(&path, json!({"store": "cold"})).expect(409);
    admin.delete(&format!("/admin/v1/jobs/{job}")).expect(202);
    assert_eq!(admin.job(&job).status(), "FAIL");
    until_held(&server, 1, 0);
    assert_eq!(store_of(&client, &image), "main");
    client.download_same(&image, segments(1, SEGMENTS));
    server.verify();
}

#[test]
fn a_move_that_is_killed_goes_on_where_it_was_noted_and_loses_nothing() {
    const SEGMENTS: u64 = 12;
    let kills = number("CALOTYPE_CRASHES").unwrap_or(24);
    let mut seed = number("CALOTYPE_SEED").unwrap_or(42);
    println!("CALOTYPE_SEED={seed} CALOTYPE_CRASHES={kills}");
    let text = [
        config::reseal_pace(UNBOUNDED, 512 * MIB, 4),
        config::log("info,calotype_blob=debug"),
    ];
    let mut server = Server::start(two_stores(&text.concat()));
    let (mut client, mut admin) = (server.user(), server.admin());
    let image = upload(&client, 1, SEGMENTS);
    let mut target = "cold";
    let mut job = begin_move(&admin, &image, target);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 900));
        server.restart();
        (client, admin) = (client.at(server.base()), admin.at(server.base()));
        match admin.show_job(&job).expect(200).json()["status"].as_str() {
            Some("INIT" | "RUNNING") => {}
            Some("SUCCESS") => {
                assert_eq!(store_of(&client, &image), target);
                client.download_same(&image, segments(1, SEGMENTS));
                target = if target == "cold" { "main" } else { "cold" };
                job = begin_move(&admin, &image, target);
            }
            status => panic!("{status:?}"),
        }
    }
    assert_eq!(admin.job(&job).status(), "SUCCESS");
    client.download_same(&image, segments(1, SEGMENTS));
    let log = server.log();
    let attempts = attempts(&log);
    let went_on = attempts.iter().any(|attempt| !attempt.found.is_empty());
    assert!(went_on, "none went on");
    let (main, cold) = if target == "main" { (1, 0) } else { (0, 1) };
    until_held(&server, main, cold);
    server.verify();
}

/// Tells a terminal's `clouds.yaml` where the server listens since its start: it was at `before`. Returns where it is.
pub(crate) fn clouds_follow(server: &Server, before: &str) -> String {
    let clouds = server.data().join("clouds.yaml");
    let text = std::fs::read_to_string(&clouds).expect("the clouds");
    std::fs::write(&clouds, text.replace(before, server.base())).expect("the clouds");
    server.base().to_owned()
}

#[test]
fn a_start_without_a_store_that_has_blobs_or_with_two_names_for_one_is_refused() {
    let mut server = Server::start(two_stores(""));
    let image = server.user().image("image", 1, 1000);
    move_to(&server.admin(), &image, "cold");
    let alone = server.try_restart(Options::config("[store.main]\n"));
    let said = alone.expect_err("it started");
    assert!(said.contains("blobs in the store cold"), "{said}");
    let path = server.data().join("stores").join("cold");
    let twice =
        format!("[store.main]\n[store.cold]\npath = {path:?}\n[store.warm]\npath = {path:?}\n");
    let said = server.try_restart(Options::config(twice));
    let said = said.expect_err("it started");
    assert!(said.contains("is the store cold"), "{said}");
    server.try_restart(two_stores("")).expect("it starts");
    let wanted = Digests::of(Content::new(1, 1000));
    assert_eq!(server.user().download(&image), wanted);
}

#[test]
fn a_store_is_emptied_into_another_under_use_by_a_command_that_is_interrupted() {
    let pace = config::reseal_pace(UNBOUNDED, 128 * MIB, 2);
    let mut server = Server::start(Options::config(format!("{pace}[store.main]\n")));
    let client = server.user();
    let mut images = Vec::new();
    for seed in 1..6 {
        let image = client.image("image", seed, 1_000_000);
        images.push((client.replicate(&image, "replica"), seed));
        images.push((image, seed));
    }
    let large = upload(&client, 9, 6);
    let words = ["migrate-store", "--from", "main", "--to", "cold"];
    let terminal = Terminal::new(&server, "calotype-admin", "json");
    terminal.fails(&words, exit::NOT_FOUND);

    let before = server.base().to_owned();
    let grace = config::deletion_grace(0);
    let to_cold = Options::config(format!("{pace}{grace}{TO_COLD}"));
    server.try_restart(to_cold).expect("it starts");
    let client = client.at(server.base());
    clouds_follow(&server, &before);
    let terminal = Terminal::new(&server, "calotype-admin", "json");
    let back = ["migrate-store", "--from", "cold", "--to", "main"];
    let said = terminal.fails(&back, exit::REFUSED);
    assert!(said.contains("still go to the store cold"), "{said}");

    let mut interrupted = terminal.command(&words).spawn().expect("it runs");
    until("some to have moved", || {
        (in_cold(&server) > 0).then_some(())
    });
    interrupted.kill().expect("killed");
    interrupted.wait().expect("its end");
    let new = client.image("meanwhile", 7, 1000);
    let output = terminal.run(&[&words[..], &["--deep"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["violations"], json!([]), "{report}");
    for (image, seed) in &images {
        assert_eq!(store_of(&client, image), "cold");
        let wanted = Digests::of(Content::new(*seed, 1_000_000));
        assert_eq!(client.download(image), wanted);
    }
    client.download_same(&large, segments(9, 6));
    until_held(&server, 0, 7);
    let admin = server.admin();
    until("nothing to be left on record either", || {
        let detail = admin.get("/v2/info/stores/detail").expect(200).json();
        (detail["stores"][1]["properties"]["leaving"] == 0).then_some(())
    });

    // Then the first store can go, and a service with the other one alone finds everything there.
    let cold_alone = Options::config(format!("{grace}[store.cold]\n"));
    server.try_restart(cold_alone).expect("it starts");
    let client = client.at(server.base());
    let wanted = Digests::of(Content::new(7, 1000));
    assert_eq!(client.download(&new), wanted);
    client.download_same(&large, segments(9, 6));
    assert_eq!(client.show(&new).get("stores"), None, "there is no choice");
    server.verify();
}
