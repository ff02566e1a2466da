//! Moves between a directory and a bucket of a real Ceph.

use std::io::Read as _;
use std::time::Duration;

use calotype_tests::content::next;
use calotype_tests::{Ceph, Content, Digests, Options, Server, config, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::command::Terminal;
use crate::crash::number;
use crate::reseal::{MIB, SEGMENT, UNBOUNDED, under};
use crate::stores::{begin_move, clouds_follow, move_to};

/// A server with a directory and a bucket, of which new images go to the directory.
fn server(ceph: &Ceph, more: &str) -> (Server, String) {
    let bucket = ceph.bucket();
    let key = (ceph.access_key(), &*ceph.secret_file());
    let far = config::s3_store(ceph.url(), &bucket, key).replace("store.main", "store.far");
    let grace = config::deletion_grace(0);
    let text = format!(
        "{grace}{more}\n{far}\n[store.main]\ntype = \"file\"\n[stores]\ndefault = \"main\"\n"
    );
    (Server::start(Options::config(text)), bucket)
}

/// Whether the bucket holds anything but labels.
fn is_empty(ceph: &Ceph, bucket: &str) -> bool {
    let keys = ceph.keys(bucket);
    keys.iter().all(|key| key.starts_with("calotype/labels/"))
}

#[test]
fn images_go_into_a_bucket_and_back_with_their_bytes_and_leave_nothing() {
    let ceph = Ceph::connect();
    let (server, bucket) = server(&ceph, "");
    let (client, admin) = (server.user(), server.admin());
    for length in [0, 65_537, SEGMENT + MIB] {
        let image = client.image("image", length, length);
        let wanted = Digests::of(Content::new(length, length));
        move_to(&admin, &image, "far");
        until("the directory to be empty", || {
            (server.stored() == 0 && server.staged() == 0).then_some(())
        });
        assert_eq!(client.download(&image), wanted, "{length} bytes");
        server.verify();
        move_to(&admin, &image, "main");
        until("the bucket to be empty", || {
            is_empty(&ceph, &bucket).then_some(())
        });
        assert_eq!(client.download(&image), wanted, "{length} bytes");
        server.verify();
        client.delete(&format!("/v2/images/{image}")).expect(204);
        until("the directory to be empty", || {
            (server.stored() == 0).then_some(())
        });
    }
    assert_eq!(ceph.uploads(&bucket), 0, "uploads are left");
}

#[test]
fn who_reads_from_a_bucket_reads_on_from_where_the_image_is_moved_to() {
    // More than what is on its way to a client that does not read.
    const LENGTH: u64 = 4 * SEGMENT;
    let ceph = Ceph::connect();
    let (server, bucket) = server(&ceph, "");
    let (client, admin) = (server.user(), server.admin());
    let image = client.image("image", 1, LENGTH);
    move_to(&admin, &image, "far");
    let request = client.request(Method::GET, &format!("/v2/images/{image}/file"));
    let mut reader = request.send().expect("an answer");
    let mut first = vec![0; 1000];
    reader.read_exact(&mut first).expect("the first bytes");
    move_to(&admin, &image, "main");
    until("the bucket to be empty", || {
        is_empty(&ceph, &bucket).then_some(())
    });
    let read = Digests::of(first.as_slice().chain(reader));
    assert_eq!(read, Digests::of(Content::new(1, LENGTH)));
    server.verify();
}

#[test]
fn a_reseal_goes_on_though_its_source_is_moved_and_collected_meanwhile() {
    const LENGTH: u64 = 4 * SEGMENT;
    let ceph = Ceph::connect();
    let pace = config::reseal_pace(UNBOUNDED, 32 * MIB, 1);
    let (server, bucket) = server(&ceph, "");
    let (client, admin) = (server.user(), server.admin());
    let image = client.image("image", 1, LENGTH);
    move_to(&admin, &image, "far");
    drop((client, admin));
    let mut server = server;
    let text = std::fs::read_to_string(server.home().join("calotype.toml")).expect("the file");
    server
        .try_restart(Options::config(format!("{pace}{text}")))
        .expect("it starts");
    let (client, admin) = (server.user(), server.admin());
    let key = client.create_key("key");
    let job = client.begin_copy(&image, under(&key));
    until("the reseal to be on", || {
        (client.progress(&job)["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    move_to(&admin, &image, "main");
    until("the bucket to be empty", || {
        is_empty(&ceph, &bucket).then_some(())
    });
    let resealed = client.job(&job);
    assert_eq!(resealed.status(), "SUCCESS", "{}", resealed.document);
    let wanted = Digests::of(Content::new(1, LENGTH));
    assert_eq!(client.download(&resealed.image()), wanted);
    server.verify();
}

#[test]
fn a_move_into_a_bucket_and_back_is_killed_again_and_again_and_loses_nothing() {
    const LENGTH: u64 = 4 * SEGMENT;
    let kills = number("CALOTYPE_CRASHES").unwrap_or(12);
    let mut seed = number("CALOTYPE_SEED").unwrap_or(7);
    println!("CALOTYPE_SEED={seed} CALOTYPE_CRASHES={kills}");
    let ceph = Ceph::connect();
    let (mut server, bucket) = server(&ceph, &config::reseal_pace(UNBOUNDED, 128 * MIB, 2));
    let (mut client, mut admin) = (server.user(), server.admin());
    let image = client.image("image", 1, LENGTH);
    let wanted = Digests::of(Content::new(1, LENGTH));
    let mut target = "far";
    let mut job = begin_move(&admin, &image, target);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 1500));
        server.restart();
        (client, admin) = (client.at(server.base()), admin.at(server.base()));
        match admin.show_job(&job).expect(200).json()["status"].as_str() {
            Some("INIT" | "RUNNING") => {}
            Some("SUCCESS") => {
                assert_eq!(client.download(&image), wanted);
                target = if target == "far" { "main" } else { "far" };
                job = begin_move(&admin, &image, target);
            }
            status => panic!("{status:?}"),
        }
    }
    assert_eq!(admin.job(&job).status(), "SUCCESS");
    if target == "far" {
        move_to(&admin, &image, "main");
    }
    assert_eq!(client.download(&image), wanted);
    until("the bucket to be empty", || {
        is_empty(&ceph, &bucket).then_some(())
    });
    until("the directory to hold the image alone", || {
        (server.stored() == 1 && server.staged() == 0).then_some(())
    });
    server.verify();
}

#[test]
fn a_directory_is_emptied_into_a_bucket_under_use_by_a_command_whose_server_is_killed_again_and_again()
 {
    let ceph = Ceph::connect();
    let (mut server, bucket) = server(&ceph, "");
    let client = server.user();
    let key = client.create_key("key");
    let mut images = Vec::new();
    for (seed, length) in [(1, 0), (2, 65_537), (3, 30_000_000), (4, SEGMENT + MIB)] {
        let image = client.image("image", seed, length);
        let replicas = [
            client.replicate(&image, "replica"),
            client.replicate_with(&image, under(&key)),
        ];
        let wanted = Digests::of(Content::new(seed, length));
        let all = replicas.into_iter().chain([image]);
        images.extend(all.map(|image| (image, wanted.clone())));
    }
    let blobs = server.stored();
    let text = std::fs::read_to_string(server.home().join("calotype.toml")).expect("the file");
    let text = text.replace("default = \"main\"", "default = \"far\"");
    let pace = config::reseal_pace(16 * MIB, 16 * MIB, 2);
    let mut before = server.base().to_owned();
    let into_the_bucket = Options::config(format!("{pace}{text}"));
    server.try_restart(into_the_bucket).expect("it starts");
    before = clouds_follow(&server, &before);
    let words = ["migrate-store", "--from", "main", "--to", "far", "--deep"];
    // The largest: whichever of the stores it is in.
    for (image, wanted) in images.iter().rev().take(3) {
        let terminal = Terminal::new(&server, "calotype-admin", "json");
        let mut command = terminal.command(&words).spawn().expect("it runs");
        until("bytes to be on their way", || {
            let keys = ceph.keys(&bucket);
            let staged = keys.iter().any(|key| key.contains("/staged/"));
            (staged || server.stored() == 0).then_some(())
        });
        assert_eq!(client.at(server.base()).download(image), *wanted);
        server.kill9();
        command.kill().expect("killed");
        command.wait().expect("its end");
        server.restart();
        before = clouds_follow(&server, &before);
    }
    let client = client.at(server.base());
    let meanwhile = client.image("meanwhile", 7, 1000);
    images.push((meanwhile, Digests::of(Content::new(7, 1000))));
    let terminal = Terminal::new(&server, "calotype-admin", "json");
    let output = terminal.run(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["violations"], json!([]), "{report}");
    assert_eq!(report["blobs_checked"], blobs + 1, "{report}");
    for (image, wanted) in &images {
        assert_eq!(client.show(image)["stores"], "far");
        assert_eq!(client.download(image), *wanted);
    }
    until("the directory to be empty", || {
        (server.stored() == 0 && server.staged() == 0).then_some(())
    });
    until("what was given up in the bucket to go", || {
        let keys = ceph.keys(&bucket);
        let staged = keys.iter().any(|key| key.contains("/staged/"));
        (!staged).then_some(())
    });
    server.verify();
}
