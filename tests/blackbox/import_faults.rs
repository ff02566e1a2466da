//! Imports whose object changes, whose bytes are hostile, or whose server is killed: no half image, and nothing is left.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use calotype_tests::{Client, Content, Digests, Options, Server, client, config, program, until};
use serde_json::json;

/// Large enough to be met on its way, of zeros and so of few bytes in the store.
const LARGE: u64 = 6 << 30;

fn on_its_way(client: &Client, job: &str) {
    until("bytes to be done", || {
        let done = client.progress(job)["bytes_done"].as_u64();
        (done > Some(0)).then_some(())
    });
}

/// A server with a directory of buckets, whose files are changed under it. The bytes of images that are no more are removed
/// within moments.
fn impatient(more: &str) -> Server {
    let grace = config::deletion_grace(0);
    let buckets = config::DIRECTORY_OF_BUCKETS;
    Server::start(Options::config(format!("{grace}{more}{buckets}")))
}

#[test]
fn an_object_that_changes_or_goes_while_it_is_read_makes_no_image() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("written", |path| {
            let file = std::fs::File::options().write(true).open(path);
            let file = file.expect("the object");
            file.write_all_at(b"!", LARGE / 2).expect("a write");
        }),
        ("removed", |path| {
            std::fs::remove_file(path).expect("it goes")
        }),
        ("replaced", |path| {
            let beside = path.with_extension("new");
            std::fs::write(&beside, b"other").expect("another");
            std::fs::rename(&beside, path).expect("a rename");
        }),
    ];
    let server = impatient("");
    let client = server.user();
    for (name, change) in changes {
        let object = server.put_sparse_object("large", LARGE);
        let job = client.begin_import(&object, json!({}));
        on_its_way(&client, &job);
        change(&server.bucket("images").join("large"));
        let ended = client.job(&job).document;
        assert_eq!(ended["status"], "FAIL", "{name}: {ended}");
        assert_eq!(ended["error_code"], "IMG.0057", "{name}: {ended}");
        assert!(client.list().is_empty(), "{name}");
    }
    until("what was staged to go", || {
        (server.staged() + server.stored() == 0).then_some(())
    });
    server.verify();
}

#[test]
fn bytes_that_refer_to_other_files_or_need_a_larger_disk_make_no_image() {
    let server = impatient("");
    let client = server.user();
    let backed = server.put_object("backed.qcow2", &backed()[..]);
    let vast = server.put_object("vast.qcow2", &program::qcow2("41G")[..]);
    for (object, code) in [(&backed, "IMG.0057"), (&vast, "IMG.0055")] {
        let job = client.begin_import(object, json!({}));
        let ended = client.job(&job).document;
        assert_eq!(ended["status"], "FAIL", "{ended}");
        assert_eq!(ended["error_code"], code, "{ended}");
        assert!(ended["fail_reason"].is_string(), "{ended}");
    }
    assert!(client.list().is_empty());
    until("what was stored to go", || {
        (server.staged() + server.stored() == 0).then_some(())
    });
    server.verify();
}

#[test]
fn an_image_whose_registering_failed_waits_for_bytes_again() {
    let server = impatient("");
    let client = server.user();
    let backed = server.put_object("backed.qcow2", &backed()[..]);
    let waiting = client.create_with(json!({
        "name": "waiting", "disk_format": "qcow2", "container_format": "bare"}));
    let path = format!("/v1/cloudimages/{waiting}/upload");
    let accepted = client.put(&path, json!({"image_url": backed})).expect(200);
    let ended = client
        .job(&client::text(&accepted.json()["job_id"]))
        .document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.1075", "{ended}");
    assert_eq!(client.show(&waiting)["status"], "queued");
    let sound = server.put_object("sound.qcow2", &program::qcow2("1G")[..]);
    let accepted = client.put(&path, json!({"image_url": sound})).expect(200);
    let job = client.job(&client::text(&accepted.json()["job_id"]));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    assert_eq!(client.show(&waiting)["status"], "active");
    server.verify();
}

/// A qcow2 image that names a file of the host as what lies below it.
fn backed() -> Vec<u8> {
    let mut image = program::qcow2("1G");
    let (place, name) = (512_u64, b"/etc/passwd");
    image[8..16].copy_from_slice(&place.to_be_bytes());
    image[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
    image[512..512 + name.len()].copy_from_slice(name);
    image
}

#[test]
fn an_import_whose_server_is_killed_is_made_by_the_next() {
    let mut server = impatient(&config::jobs(4, 5));
    let client = server.user();
    let object = server.put_sparse_object("large", 1 << 30);
    let file = std::fs::File::options()
        .write(true)
        .open(server.bucket("images").join("large"))
        .expect("the object");
    file.write_all_at(&Content::bytes(3, 1 << 20), 1 << 29)
        .expect("some bytes");
    drop(file);
    let wanted = Digests::of(
        std::fs::File::open(server.bucket("images").join("large")).expect("the object"),
    );
    let job = client.begin_import(&object, json!({}));
    for _ in 0..2 {
        on_its_way(&client.at(server.base()), &job);
        server.restart();
    }
    let client = client.at(server.base());
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    let shown = client.show(&ended.image());
    assert_eq!(shown["size"], wanted.length);
    assert_eq!(shown["os_hash_value"], wanted.sha512);
    assert_eq!(client.list().len(), 1);
    until("what dead attempts staged to go", || {
        (server.staged() == 0).then_some(())
    });
    assert_eq!(server.stored(), 1);
    server.verify();
}

#[test]
fn an_import_that_is_cancelled_or_whose_image_is_asked_to_go_leaves_nothing() {
    let server = impatient("");
    let client = server.user();
    let object = server.put_sparse_object("large", LARGE);
    let job = client.begin_import(&object, json!({}));
    on_its_way(&client, &job);
    let image = client::text(&client.list()[0]["id"]);
    let delete = client.delete(&format!("/v2/images/{image}"));
    assert_eq!(delete.status, 409, "{delete}");
    client.delete(&format!("/admin/v1/jobs/{job}")).expect(202);
    assert_eq!(client.job(&job).document["error_code"], "IMG.0014");
    assert!(client.list().is_empty());
    until("what was staged to go", || {
        (server.staged() + server.stored() == 0).then_some(())
    });
    server.verify();
}

#[test]
fn memory_does_not_grow_with_the_object() {
    let server = Server::embedded();
    let client = server.user();
    let first = server.put_object("first", Content::new(1, 64 << 20));
    client.imported(&first, json!({}));
    let before = resident(&server);
    let large = server.put_sparse_object("large", 1 << 30);
    client.imported(&large, json!({}));
    let after = resident(&server);
    assert!(
        after < before + (64 << 20),
        "{before} bytes before, {after} after"
    );
}

/// The most memory that the server has had.
fn resident(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let status = std::fs::read_to_string(path).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        * 1024
}
