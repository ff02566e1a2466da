//! Bytes that rot on the disk: never served, said of the images that have them, and forgotten once they are repaired.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use calotype_tests::{Ceph, Client, Content, Digests, Options, Server, config, database, until};
use reqwest::Method;
use serde_json::{Value, json};

const LENGTH: u64 = 3_000_000;
/// The stored bytes of a whole segment: 1024 sealed pages.
pub(crate) const SLOT: u64 = 1024 * 65_568;

#[test]
fn damaged_bytes_are_not_served_and_their_images_say_so_until_they_are_repaired() {
    let server = Server::start(Options::config(config::deletion_grace(0)));
    let (client, admin) = (server.user(), server.admin());
    let wanted = Digests::of(Content::new(1, LENGTH));
    for offset in [0, 70_000, LENGTH - 1] {
        // Each time one that no node has read: what it has it need not read again.
        let image = client.image("rots", 1, LENGTH);
        let replica = client.replicate(&image, "shares the bytes");
        let body = body(&server);
        flip(&body, offset);
        assert!(!is_served(&client, &replica), "a flip at {offset}");
        for id in [&image, &replica] {
            assert!(client.show(id)["calotype_damaged_at"].is_string());
            let refused = client
                .copy(id, json!({"name": "of damaged bytes"}))
                .expect(400);
            assert_eq!(refused.json()["error"]["code"], "IMG.0057", "{refused}");
        }

        flip(&body, offset);
        assert_eq!(client.download(&image), wanted, "it is whole again");
        admin.verify_rows();
        assert!(
            client.show(&image)["calotype_damaged_at"].is_string(),
            "not every byte was looked at"
        );
        admin.verify();
        for id in [&image, &replica] {
            assert_eq!(client.show(id)["calotype_damaged_at"], Value::Null);
        }
        let copied = client.replicate(&image, "of repaired bytes");
        assert_eq!(client.download(&copied), wanted);
        for id in [image, replica, copied] {
            client.delete(&format!("/v2/images/{id}")).expect(204);
        }
        until("its bytes to go", || (server.stored() == 0).then_some(()));
    }
}

#[test]
fn the_verifier_marks_what_it_finds_damaged() {
    let server = Server::with_defaults();
    let (client, admin) = (server.user(), server.admin());
    let image = client.image("rots", 1, LENGTH);
    flip(&body(&server), LENGTH / 2);
    let report = admin.get("/admin/v1/verify").expect(200).json();
    assert_eq!(report["violations"], json!([]), "its pages are not opened");
    let report = admin.get("/admin/v1/verify?deep=true").expect(200).json();
    let violations = report["violations"].as_array().expect("a list");
    assert_eq!(violations.len(), 1, "{report}");
    assert_eq!(violations[0]["invariant"], 1, "{report}");
    assert!(client.show(&image)["calotype_damaged_at"].is_string());
}

#[test]
fn bytes_that_rot_are_found_though_nobody_reads_them_and_so_is_their_repair() {
    let server = Server::start(Options::config(config::scrub(1)));
    let client = server.user();
    let image = client.image("rots", 1, LENGTH);
    let replica = client.replicate(&image, "shares the bytes");
    let damaged = |id: &str| client.show(id)["calotype_damaged_at"].is_string();
    // Each node tells of all.
    let damaged_blobs =
        || server.metric("calotype_damaged_blobs", &[]) / server.bases().count() as f64;
    let body = body(&server);
    for offset in [0, 70_000, LENGTH - 1] {
        flip(&body, offset);
        until("the damage to be found", || {
            (damaged(&image) && damaged(&replica)).then_some(())
        });
        assert_eq!(damaged_blobs(), 1.0);
        flip(&body, offset);
        until("the repair to be found", || {
            (!damaged(&image) && !damaged(&replica)).then_some(())
        });
        assert_eq!(damaged_blobs(), 0.0);
    }
    body.remove();
    until("the loss to be found", || damaged(&image).then_some(()));
    assert_eq!(server.metric("calotype_damaged_reads_total", &[]), 0.0);
}

#[test]
fn a_store_that_is_not_mounted_any_more_has_lost_nothing() {
    let server = Server::start(Options::config(config::scrub(1)).embedded());
    let client = server.user();
    let image = client.image("whole", 1, LENGTH);
    let (store, away) = (server.data().join("blobs"), server.data().join("away"));
    std::fs::rename(&store, &away).expect("moved");
    // What a start leaves at the place of a volume that it has not found there.
    for directory in ["blobs", "staged", "labels"] {
        std::fs::create_dir_all(store.join(directory)).expect("a directory");
    }
    until("the store to be missed", || {
        server.log().contains("not scrubbed").then_some(())
    });
    let shown = client.show(&image);
    assert_eq!(shown["calotype_damaged_at"], Value::Null, "{shown}");
    until("the store to be told as away", || {
        let away = server.metric("calotype_store_away", &["store=\"main\""]);
        (away == 1.0).then_some(())
    });
    std::fs::remove_dir_all(&store).expect("what was left");
    std::fs::rename(&away, &store).expect("moved");
    let wanted = Digests::of(Content::new(1, LENGTH));
    assert_eq!(client.download(&image), wanted);
}

#[test]
fn where_nothing_is_to_be_read_again_nothing_is() {
    let server = Server::start(Options::config(config::scrub(0)));
    let client = server.user();
    let image = client.image("rots", 1, LENGTH);
    flip(&body(&server), 70_000);
    // Who would scrub asks for a lease when it starts, as who collects does.
    until("the collector to have its lease", || {
        server.log().contains("lease=\"reconciler\"").then_some(())
    });
    assert!(!server.log().contains("lease=\"scrubber\""));
    assert_eq!(client.show(&image)["calotype_damaged_at"], Value::Null);
    assert_eq!(server.metric("calotype_scrub_behind_seconds", &[]), 0.0);
}

#[test]
fn of_two_nodes_one_scrubs_and_when_it_dies_the_other_does() {
    let store = tempfile::tempdir().expect("a directory");
    let url = database::fresh("scrub");
    let text = config::shared(&url, store.path()) + &config::scrub(1);
    let mut first = Server::start(Options::config(text.clone()));
    let second = Server::start(Options::config(text));
    let client = first.user();
    let image = client.image("rots", 1, LENGTH);
    let holder = "select holder from leases where name = 'scrubber' and expires_at > 0";
    let held = |by: &Server| {
        let by = format!("-{}-", by.pid());
        database::sql(&url, holder).contains(&by)
    };
    until("the first to have the lease", || held(&first).then_some(()));
    first.kill9();
    until("the second to have it", || held(&second).then_some(()));
    flip(&Body::File(body_in(&store.path().join("blobs"))), 70_000);
    let there = client.at(second.base());
    until("the damage to be found", || {
        there.show(&image)["calotype_damaged_at"]
            .is_string()
            .then_some(())
    });
}

/// Whether all of an image's bytes come.
pub(crate) fn is_served(client: &Client, image: &str) -> bool {
    let request = client.request(Method::GET, &format!("/v2/images/{image}/file"));
    let response = request.send().expect("an answer");
    response.status().is_success() && Digests::try_of(response).is_ok()
}

/// Stored bytes: a file, or the segments of an attempt in a bucket.
pub(crate) enum Body {
    File(PathBuf),
    Segments { bucket: String, attempt: String },
}

impl Body {
    /// The blob whose they are.
    pub(crate) fn blob(&self) -> &str {
        let place = match self {
            Self::File(path) => path.to_str().expect("a text"),
            Self::Segments { attempt, .. } => attempt,
        };
        place.rsplit('/').nth(1).expect("a blob")
    }

    /// Loses the beginning of them.
    fn remove(&self) {
        match self {
            Self::File(path) => std::fs::remove_file(path).expect("the body"),
            Self::Segments { bucket, attempt } => {
                Ceph::connect().remove(bucket, &segment(attempt, 0));
            }
        }
    }
}

/// The key of a segment of an attempt.
fn segment(attempt: &str, index: u64) -> String {
    format!("{attempt}/{index:08x}")
}

/// The one body in the server's store.
pub(crate) fn body(server: &Server) -> Body {
    if !server.is_on_engines() {
        return Body::File(body_in(&server.data().join("blobs")));
    }
    let bucket = server.bucket_of_blobs().to_owned();
    let keys = Ceph::connect().keys(&bucket);
    let mut attempts = keys.iter().filter_map(|key| {
        let attempt = key.strip_suffix("/00000000")?;
        attempt.starts_with("calotype/data/").then_some(attempt)
    });
    let attempt = attempts.next().expect("a blob").to_owned();
    assert!(attempts.next().is_none(), "one blob");
    Body::Segments { bucket, attempt }
}

fn body_in(store: &Path) -> PathBuf {
    let list = |path: PathBuf| std::fs::read_dir(path).expect("the store").flatten();
    let prefixes = list(store.join("blobs"));
    let mut blobs = prefixes.flat_map(|prefix| list(prefix.path()));
    let blob = blobs.next().expect("a blob").path();
    assert!(blobs.next().is_none(), "one blob");
    blob.join("body")
}

pub(crate) fn flip(body: &Body, offset: u64) {
    match body {
        Body::File(path) => flip_in(path, offset),
        Body::Segments { bucket, attempt } => {
            let (ceph, key) = (Ceph::connect(), segment(attempt, offset / SLOT));
            let copy = tempfile::NamedTempFile::new().expect("a file");
            ceph.get(bucket, &key, copy.path());
            flip_in(copy.path(), offset % SLOT);
            ceph.put(bucket, &key, copy.path());
        }
    }
}

fn flip_in(body: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(body);
    let file = file.expect("the body");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1;
    file.write_all_at(&byte, offset).expect("written");
}
