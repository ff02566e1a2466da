//! Images whose bytes are in a real Ceph: every use of them, kills at any instant, and a gateway that stands still or dies.

use std::time::Duration;

use calotype_tests::ceph::Gateway;
use calotype_tests::content::next;
use calotype_tests::{Ceph, Client, Content, Digests, Options, Server, config, until};
use serde_json::json;

use crate::damage::is_served;
use crate::reseal::{MIB, SEGMENT, segments, under, upload};
use crate::reseal_kills::attempts;

/// Of several parts.
const LENGTH: u64 = 30_000_123;

/// A server whose blobs are in a bucket of its own behind an address, with more configuration.
fn server(ceph: &Ceph, url: &str, more: &str) -> (Server, String) {
    let bucket = ceph.bucket();
    let key = (ceph.access_key(), &*ceph.secret_file());
    let store = config::s3_store(url, &bucket, key);
    let server = Server::start(Options::config(format!("{more}\n{store}")));
    (server, bucket)
}

/// The objects of the bucket, but for the labels.
fn objects(ceph: &Ceph, bucket: &str) -> Vec<String> {
    let keys = ceph.keys(bucket);
    let others = keys.into_iter();
    others
        .filter(|key| !key.starts_with("calotype/labels/"))
        .collect()
}

fn expect_nothing_left(ceph: &Ceph, bucket: &str) {
    until("the bytes to go", || {
        objects(ceph, bucket).is_empty().then_some(())
    });
    assert_eq!(ceph.uploads(bucket), 0, "uploads are left");
}

#[test]
fn images_are_written_read_replicated_resealed_and_removed() {
    let ceph = Ceph::connect();
    let (server, bucket) = server(&ceph, ceph.url(), &config::deletion_grace(0));
    let client = server.user();
    let key = client.create_key("key");
    let mut images = Vec::new();
    for length in [0, 1, 65_537, LENGTH, SEGMENT + MIB] {
        let source = client.image("source", length, length);
        let wanted = Digests::of(Content::new(length, length));
        let plain = client.replicate(&source, "plain");
        let sealed = client.replicate_with(&source, under(&key));
        for image in [&source, &plain, &sealed] {
            assert_eq!(client.download(image), wanted, "{length} bytes");
        }
        images.extend([source, plain, sealed]);
    }
    let bytes = Content::bytes(LENGTH, LENGTH);
    let image = &images[9];
    for range in [
        0..1,
        65_535..65_537,
        12_000_000..12_300_000,
        LENGTH - 3..LENGTH,
    ] {
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = client.range(image, &asked).expect(206);
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(answer.bytes == wanted, "{asked}");
    }
    server.verify();
    assert!(!server.log().contains(ceph.secret_key()));
    let metrics = client.get("/metrics").expect(200).text();
    assert!(metrics.contains("calotype_s3_requests_total{"), "{metrics}");
    for image in &images {
        client.delete(&format!("/v2/images/{image}")).expect(204);
    }
    expect_nothing_left(&ceph, &bucket);
    server.verify();
}

#[test]
fn an_upload_that_is_broken_off_leaves_nothing() {
    let ceph = Ceph::connect();
    let (server, bucket) = server(&ceph, ceph.url(), &config::deletion_grace(0));
    let client = server.user();
    let image = client.create("broken");
    // Fewer bytes come than are announced.
    let sent = client.upload_stream(&image, Content::new(1, LENGTH), LENGTH + 1);
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status >= 400));
    expect_nothing_left(&ceph, &bucket);
    assert_eq!(client.show(&image)["status"], "queued");
    client
        .upload(&image, Content::bytes(1, 100_000))
        .expect(204);
    server.verify();
}

#[test]
fn a_reseal_whose_server_is_killed_goes_on_where_it_was_noted() {
    const SEGMENTS: u64 = 24;
    const KILLS: u64 = 6;
    let ceph = Ceph::connect();
    let more = [
        config::reseal_pace(1 << 40, 256 * MIB, 4),
        config::log("info,calotype_blob=debug"),
        config::deletion_grace(0),
    ];
    let (mut server, bucket) = server(&ceph, ceph.url(), &more.concat());
    let mut client = server.user();
    let key = client.create_key("key");
    let source = upload(&client, 1, SEGMENTS);
    let job = client.begin_copy(&source, under(&key));
    let mut seed = 7;
    for _ in 0..KILLS {
        let before = client.progress(&job)["bytes_done"].as_u64();
        until("the job to move", || {
            let shown = client.show_job(&job).expect(200).json();
            let done = client.progress(&job)["bytes_done"].as_u64();
            (done > before || shown["status"] == "SUCCESS").then_some(())
        });
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 300));
        server.restart();
        client = client.at(server.base());
    }
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    client.download_same(&ended.image(), segments(1, SEGMENTS));
    let attempts = attempts(&server.log());
    assert!(
        attempts.iter().any(|attempt| !attempt.found.is_empty()),
        "some went on: {attempts:?}"
    );
    server.verify();
    for image in [&source, &ended.image()] {
        client.delete(&format!("/v2/images/{image}")).expect(204);
    }
    expect_nothing_left(&ceph, &bucket);
}

/// A server behind a gateway of the test's own, with an image.
fn behind(gateway: &Gateway, ceph: &Ceph) -> (Server, Client, String) {
    let (server, _) = server(ceph, &gateway.url(), &config::deletion_grace(0));
    let client = server.user();
    let image = client.image("source", 1, LENGTH);
    (server, client, image)
}

#[test]
fn a_store_that_stands_still_is_unavailable_and_no_damage_and_what_needs_no_bytes_goes_on() {
    let ceph = Ceph::connect();
    let gateway = ceph.gateway();
    let (server, client, image) = behind(&gateway, &ceph);
    let key = client.create_key("key");
    gateway.pause();
    let job = client.begin_copy(&image, under(&key));
    let refused = client.get(&format!("/v2/images/{image}/file")).expect(503);
    assert!(!refused.header("retry-after").is_empty());
    let away = || server.metric("calotype_store_away", &["store=\"main\""]);
    until("it to be told", || (away() > 0.0).then_some(()));
    client.create("more");
    assert_eq!(client.show(&image)["status"], "active");
    until("an attempt in vain", || {
        let attempt = client.progress(&job)["attempt"].as_u64();
        (attempt >= Some(2)).then_some(())
    });
    gateway.go_on();
    until("it to be told", || (away() < 1.0).then_some(()));
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    let shown = client.show(&image);
    assert!(shown.get("calotype_damaged_at").is_none(), "{shown}");
    let wanted = Digests::of(Content::new(1, LENGTH));
    for image in [&image, &ended.image()] {
        assert_eq!(client.download(image), wanted);
    }
    server.verify();
}

#[test]
fn a_job_waits_for_a_gateway_that_was_killed_and_is_back() {
    let ceph = Ceph::connect();
    let mut gateway = ceph.gateway();
    let (server, client, image) = behind(&gateway, &ceph);
    let key = client.create_key("key");
    gateway.kill();
    let job = client.begin_copy(&image, under(&key));
    client.get(&format!("/v2/images/{image}/file")).expect(503);
    until("an attempt in vain", || {
        let attempt = client.progress(&job)["attempt"].as_u64();
        (attempt >= Some(2)).then_some(())
    });
    gateway.restart();
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    assert_eq!(
        client.download(&ended.image()),
        Digests::of(Content::new(1, LENGTH))
    );
    server.verify();
}

#[test]
fn a_segment_that_is_gone_or_another_is_damage_and_is_never_served() {
    let ceph = Ceph::connect();
    let (server, bucket) = server(&ceph, ceph.url(), "");
    let client = server.user();
    for replaced in [false, true] {
        let image = client.image("source", 1, 100_000);
        let segment = objects(&ceph, &bucket)
            .into_iter()
            .find(|key| key.ends_with("/00000000"))
            .expect("a segment");
        if replaced {
            ceph.put_bytes(&bucket, &segment, &[7; 100_064]);
        } else {
            ceph.remove(&bucket, &segment);
        }
        assert!(!is_served(&client, &image), "replaced: {replaced}");
        until("the damage to be shown", || {
            client.show(&image).get("calotype_damaged_at").cloned()
        });
        client
            .copy(&image, json!({"name": "of it"}))
            .refused(400, "IMG.0057");
        ceph.remove(&bucket, &segment);
    }
    drop(server);
}

#[test]
fn many_readers_of_an_image_read_the_store_once_and_a_spoilt_cache_is_no_damage() {
    let ceph = Ceph::connect();
    let cache = tempfile::tempdir().expect("a directory");
    let bucket = ceph.bucket();
    let key = (ceph.access_key(), &*ceph.secret_file());
    let store = config::s3_store(ceph.url(), &bucket, key);
    let kept = format!("[store.main.cache]\npath = {:?}\n", cache.path());
    let mut server = Server::start(Options::config(store + &kept));
    let mut client = server.user();
    let image = client.image("source", 1, LENGTH);
    let wanted = Digests::of(Content::new(1, LENGTH));
    let readers = |client: &Client, count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| assert_eq!(client.download(&image), wanted));
            }
        });
    };
    readers(&client, 20);
    let before = reads(&server);
    // Of 2 MiB each.
    assert!(before <= LENGTH.div_ceil(2 * MIB) as f64, "{before} reads");
    readers(&client, 10);
    assert_eq!(reads(&server), before, "the second time nothing is read");
    // What lies in the cache is believed by nobody, also after a start that remembers nothing else.
    server.kill9();
    for entry in std::fs::read_dir(cache.path()).expect("the cache") {
        let path = entry.expect("a piece").path();
        let length = path.metadata().expect("its length").len();
        std::fs::write(&path, vec![9; length as usize]).expect("other bytes");
    }
    server.restart();
    client = client.at(server.base());
    readers(&client, 3);
    assert!(reads(&server) > 0.0);
    assert!(client.show(&image).get("calotype_damaged_at").is_none());
    server.verify();
}

/// Requests so far for bytes of segments.
fn reads(server: &Server) -> f64 {
    server.metric("calotype_s3_requests_total", &["operation=\"read\""])
}
