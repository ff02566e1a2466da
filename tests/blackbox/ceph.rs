//! Imports from a real Ceph: what its gateway gives, refuses, and does when it stands still, dies, or has another object. And
//! exports to it.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use calotype_tests::exports::{driver, real_disk, same_disk};
use calotype_tests::{Ceph, Client, Content, Digests, Front, Options, Server, client, config};
use calotype_tests::{program, until};
use serde_json::{Value, json};

/// Of many parts, and met on its way with a part of them.
const LENGTH: u64 = 70_000_123;
const PART: usize = 20_000_000;

/// A server whose buckets are behind an address, with the access key of the gateway's user.
fn server(ceph: &Ceph, url: &str) -> Server {
    let key = (ceph.access_key(), &*ceph.secret_file());
    let objects = config::s3(url, key);
    Server::start(Options::config(objects + &config::deletion_grace(0)))
}

fn digests(file: &Path) -> Digests {
    Digests::of(File::open(file).expect("the file"))
}

/// A raw disk with data, a qcow2 of it as qemu-img writes it, and a real ISO.
fn files(directory: &Path) -> [(&'static str, std::path::PathBuf); 3] {
    let (raw, qcow2) = (directory.join("disk.raw"), directory.join("disk.qcow2"));
    std::fs::write(&raw, Content::bytes(5, LENGTH)).expect("room");
    let (from, to) = (raw.to_string_lossy(), qcow2.to_string_lossy());
    let convert = ["convert", "-q", "-f", "raw", "-O", "qcow2", &from, &to];
    program::run("qemu-img", &convert);
    [
        ("raw", raw),
        ("qcow2", qcow2),
        ("iso", program::memtest_iso()),
    ]
}

#[test]
fn objects_become_images_by_every_path_plain_and_under_a_key() {
    let ceph = Ceph::connect();
    let (server, bucket) = (server(&ceph, ceph.url()), ceph.bucket());
    let client = server.user();
    let key = client.create_key("k");
    let directory = tempfile::tempdir().expect("a directory");
    let files = files(directory.path());
    for (format, file) in &files {
        ceph.put(&bucket, &format!("deep/er/disk.{format}"), file);
    }
    let action = "/v2/cloudimages/action";
    let (quick, data) = (
        "/v2/cloudimages/quickimport/action",
        "/v1/cloudimages/dataimages/action",
    );
    let version = "CentOS 7.2 64bit";
    let disc = json!({"type": "IsoImage", "os_version": version});
    for (path, format, more) in [
        (action, "raw", json!({})),
        (action, "qcow2", json!({})),
        (action, "iso", disc),
        (quick, "raw", json!({"os_version": version})),
        (quick, "raw", json!({"type": "DataImage"})),
        (data, "qcow2", json!({})),
        ("/v1/cloudimages/action", "raw", json!({})),
    ] {
        for cmk_id in [None, Some(&key)] {
            let mut more = more.clone();
            if let Some(key) = cmk_id {
                more["cmk_id"] = json!(key);
            }
            let object = format!("{bucket}:deep/er/disk.{format}");
            let accepted = client.import_at(path, &object, more.clone()).expect(200);
            let image = made(&client, &accepted.json());
            has(&client, &image, &files, format);
            let shown = client.show(&image);
            let seen = shown.get("__system__cmkid").and_then(Value::as_str);
            assert_eq!(seen, cmk_id.map(String::as_str), "{path} {more}");
        }
    }
    let waiting = client.create_with(json!({"name": "waiting"}));
    let body = json!({"image_url": format!("{bucket}:deep/er/disk.qcow2")});
    let registered = client.put(&format!("/v1/cloudimages/{waiting}/upload"), body);
    assert_eq!(made(&client, &registered.expect(200).json()), waiting);
    has(&client, &waiting, &files, "qcow2");
    assert!(!server.log().contains(ceph.secret_key()));
    server.verify();
}

/// The image that an accepted job makes.
fn made(client: &Client, accepted: &Value) -> String {
    let job = client.job(&client::text(&accepted["job_id"]));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    job.image()
}

/// Proves that an image has the bytes of the file in a format.
fn has(client: &Client, image: &str, files: &[(&str, std::path::PathBuf)], format: &str) {
    let file = files.iter().find(|(name, _)| *name == format);
    let wanted = digests(&file.expect("a file").1);
    let shown = client.show(image);
    assert_eq!(shown["disk_format"], format);
    assert_eq!(shown["size"], wanted.length);
    assert_eq!(shown["os_hash_value"], wanted.sha512);
    if format == "qcow2" {
        // Whole sectors, as qemu-img counts.
        assert_eq!(shown["virtual_size"], LENGTH.next_multiple_of(512));
    }
    assert_eq!(client.download(image), wanted);
}

#[test]
fn an_image_is_exported_into_a_bucket_and_imported_from_it_again() {
    let ceph = Ceph::connect();
    let (server, bucket) = (server(&ceph, ceph.url()), ceph.bucket());
    let client = server.user();
    let key = client.create_key("k");
    let directory = tempfile::tempdir().expect("a directory");
    let disk = directory.path().join("disk.raw");
    real_disk(&disk);
    ceph.put(&bucket, "disk.raw", &disk);
    for (name, more) in [("plain", json!({})), ("sealed", json!({"cmk_id": key}))] {
        let image = client.imported(&format!("{bucket}:disk.raw"), more);
        for format in ["raw", "qcow2", "vhd", "vmdk"] {
            let place = format!("out/{name}.{format}");
            let object = format!("{bucket}:{place}");
            client.exported(&image, &object, format);
            let got = directory.path().join("got");
            ceph.get(&bucket, &place, &got);
            same_disk((&disk, "raw"), (&got, driver(format)));
            let again = client.imported(&object, json!({}));
            assert_eq!(client.show(&again)["disk_format"], format);
            assert_eq!(client.download(&again), digests(&got), "{place}");
            let body = json!({"bucket_url": object, "file_format": format});
            client.export(&image, body).refused(400, "IMG.0070");
        }
        // As it is stored: byte for byte.
        ceph.get(
            &bucket,
            &format!("out/{name}.raw"),
            &directory.path().join("raw"),
        );
        assert_eq!(digests(&directory.path().join("raw")), digests(&disk));
    }
    assert_eq!(ceph.uploads(&bucket), 0, "uploads are left");
    assert_eq!(server.converting(), 0);
    server.verify();
}

#[test]
fn a_gibibyte_of_zeros_becomes_an_image_that_takes_little_room() {
    let ceph = Ceph::connect();
    let (server, bucket) = (server(&ceph, ceph.url()), ceph.bucket());
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sparse");
    let file = File::create(&path).expect("a file");
    file.set_len(1 << 30).expect("its length");
    for place in [0, 600 << 20, (1 << 30) - 3] {
        file.write_all_at(b"end", place).expect("some bytes");
    }
    let object = ceph.put(&bucket, "sparse.raw", &path);
    let image = client.imported(&object, json!({}));
    ceph.remove(&bucket, "sparse.raw");
    let wanted = digests(&path);
    assert_eq!(client.show(&image)["checksum"], wanted.md5);
    client.download_same(&image, File::open(&path).expect("the file"));
    let room = room(&server.data().join("blobs"));
    assert!(room < 2 << 20, "{room} bytes are taken");
    server.verify();
}

/// The bytes that the files below a directory take on the disk.
fn room(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    entries
        .map(|entry| match entry.metadata().expect("an entry") {
            facts if facts.is_dir() => room(&entry.path()),
            facts => facts.blocks() * 512,
        })
        .sum()
}

/// An import through a front that holds its bytes once some have passed.
struct Held {
    front: Front,
    server: Server,
    client: Client,
    bucket: String,
    job: String,
}

impl Held {
    fn begin(ceph: &Ceph, gateway: &str) -> Self {
        let front = Front::open();
        front.lead_to(gateway);
        let (server, bucket) = (server(ceph, front.url()), ceph.bucket());
        let client = server.user();
        let object = ceph.put_bytes(&bucket, "disk", &Content::bytes(5, LENGTH));
        front.hold_after(PART);
        let job = client.begin_import(&object, json!({}));
        front.wait_until_held();
        Self {
            front,
            server,
            client,
            bucket,
            job,
        }
    }

    /// Waits until another attempt was made in vain: the job goes on, and there is no image yet.
    fn wait_until_tried_again(&self) {
        until("another attempt", || {
            let attempt = self.client.progress(&self.job)["attempt"].as_u64();
            (attempt >= Some(2)).then_some(())
        });
        let document = self.client.show_job(&self.job).expect(200).json();
        assert_ne!(document["status"], "FAIL", "{document}");
        assert_eq!(self.client.list()[0]["status"], "saving");
    }

    fn expect_success(&self) {
        let job = self.client.job(&self.job);
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        let wanted = Digests::of(Content::new(5, LENGTH));
        assert_eq!(self.client.download(&job.image()), wanted);
        self.expect_stored(1);
    }

    /// The job failed with the code, and there is no image.
    fn expect_failure(&self, code: &str) {
        let document = self.client.job(&self.job).document;
        assert_eq!(document["status"], "FAIL", "{document}");
        assert_eq!(document["error_code"], code, "{document}");
        assert!(self.client.list().is_empty());
        self.expect_stored(0);
    }

    fn expect_stored(&self, blobs: usize) {
        until("what was staged to go", || {
            let left = (self.server.staged(), self.server.stored());
            (left == (0, blobs)).then_some(())
        });
        self.server.verify();
    }
}

#[test]
fn an_import_goes_on_when_a_gateway_that_stood_still_does() {
    let ceph = Ceph::connect();
    let gateway = ceph.gateway();
    let held = Held::begin(&ceph, &gateway.url());
    gateway.pause();
    held.front.let_through();
    held.wait_until_tried_again();
    gateway.go_on();
    held.expect_success();
}

#[test]
fn an_import_goes_on_when_a_gateway_that_was_killed_is_back() {
    let ceph = Ceph::connect();
    let mut gateway = ceph.gateway();
    let held = Held::begin(&ceph, &gateway.url());
    gateway.kill();
    held.front.let_through();
    held.wait_until_tried_again();
    gateway.restart();
    held.expect_success();
}

#[test]
fn an_object_that_is_replaced_between_two_parts_makes_no_image() {
    let ceph = Ceph::connect();
    let held = Held::begin(&ceph, ceph.url());
    ceph.put_bytes(&held.bucket, "disk", &Content::bytes(6, LENGTH));
    held.front.let_through();
    held.expect_failure("IMG.0057");
}

#[test]
fn an_object_that_is_removed_between_two_parts_makes_no_image() {
    let ceph = Ceph::connect();
    let held = Held::begin(&ceph, ceph.url());
    ceph.remove(&held.bucket, "disk");
    held.front.let_through();
    held.expect_failure("IMG.0057");
}

#[test]
fn an_object_that_is_replaced_while_its_gateway_is_away_makes_no_image() {
    let ceph = Ceph::connect();
    let mut gateway = ceph.gateway();
    let held = Held::begin(&ceph, &gateway.url());
    gateway.kill();
    held.front.let_through();
    held.wait_until_tried_again();
    ceph.put_bytes(&held.bucket, "disk", &Content::bytes(6, LENGTH));
    gateway.restart();
    held.expect_failure("IMG.0057");
}

#[test]
fn what_is_missing_or_closed_has_its_code() {
    let ceph = Ceph::connect();
    let (server, bucket) = (server(&ceph, ceph.url()), ceph.bucket());
    let client = server.user();
    let stranger = ceph.stranger();
    let closed = stranger.bucket();
    stranger.put_bytes(&closed, "disk", b"not yours");
    ceph.put_bytes(&bucket, "empty", b"");
    for (object, code) in [
        (format!("{bucket}:nothing"), "IMG.0057"),
        (format!("{bucket}:empty"), "IMG.0057"),
        ("no-such-bucket:disk".to_owned(), "IMG.0069"),
        (format!("{closed}:disk"), "IMG.0069"),
        (format!("{closed}:nothing"), "IMG.0069"),
    ] {
        client.import(&object, json!({})).refused(400, code);
    }
    assert!(client.list().is_empty());
    server.verify();
}

#[test]
fn a_credential_that_the_gateway_does_not_take_and_a_gateway_that_is_away_are_the_operators() {
    let ceph = Ceph::connect();
    let bucket = ceph.bucket();
    let object = ceph.put_bytes(&bucket, "disk", b"bytes");
    let wrong = ceph.secret_file().with_file_name("wrong");
    std::fs::write(&wrong, "another secret").expect("a secret");
    let mut gateway = ceph.gateway();
    gateway.kill();
    let (id, secret) = (ceph.access_key(), ceph.secret_file());
    for (url, key) in [
        (ceph.url().to_owned(), (id, &*wrong)),
        (ceph.url().to_owned(), ("AKNOBODY", &*secret)),
        (gateway.url(), (id, &*secret)),
    ] {
        let server = Server::start(Options::config(config::s3(&url, key)));
        let client = server.user();
        let answer = client.import(&object, json!({}));
        assert!(answer.headers.contains_key("retry-after"), "{answer}");
        answer.refused(503, "IMG.0061");
        assert!(client.list().is_empty());
        assert!(!server.log().contains("another secret"));
    }
}
