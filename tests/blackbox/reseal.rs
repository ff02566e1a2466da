//! Replicas under other keys, over HTTP: their bytes, who may make them, and how several servers share the work.

use std::io::{self, Read};

use calotype_tests::small_disk::SmallDisk;
use calotype_tests::{Client, Content, Digests, Options, Server, config, database, until};
use serde_json::{Value, json};

use crate::reseal_kills::attempts;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const SEGMENT: u64 = 64 * MIB;
/// Bytes at the beginning of each segment; the rest is a hole. Segments are what is scheduled, noted and done again.
pub(crate) const DATA: u64 = 256 << 10;
/// What no reseal of a test reaches.
pub(crate) const UNBOUNDED: u64 = 1 << 40;

/// An image of so many segments.
pub(crate) fn segments(seed: u64, count: u64) -> impl Read + Send + 'static {
    let segment =
        move |index| Content::new(seed + index, DATA).chain(io::repeat(0).take(SEGMENT - DATA));
    (0..count).map(segment).fold(
        Box::new(io::empty()) as Box<dyn Read + Send>,
        |all, segment| Box::new(all.chain(segment)),
    )
}

pub(crate) fn upload(client: &Client, seed: u64, count: u64) -> String {
    let image = client.create("source");
    let sent = client.upload_stream(&image, segments(seed, count), count * SEGMENT);
    sent.expect("an answer").expect(204);
    image
}

pub(crate) fn under(key: &str) -> Value {
    json!({"name": "replica", "cmk_id": key})
}

fn cmk(client: &Client, image: &str) -> Value {
    client.show(image)["__system__cmkid"].clone()
}

#[test]
fn an_image_goes_from_key_to_key_and_back_with_its_bytes_and_digests() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let keys = ["first", "second"].map(|alias| client.create_key(alias));
    for length in [0, 1, 65_536, 3_000_000, SEGMENT + 1] {
        let wanted = Digests::of(Content::new(length, length));
        let mut image = client.image("source", length, length);
        for key in [Some(&keys[0]), Some(&keys[1]), None] {
            let body = key.map_or_else(|| json!({"name": "replica"}), |key| under(key));
            let replica = client.replicate_with(&image, body);
            assert_eq!(cmk(&client, &replica), json!(key), "{length} bytes");
            assert_eq!(client.download(&replica), wanted, "{length} bytes");
            let shown = client.show(&replica);
            assert_eq!(shown["checksum"], wanted.md5);
            assert_eq!(shown["os_hash_value"], wanted.sha512);
            client.delete(&format!("/v2/images/{image}")).expect(204);
            assert_eq!(client.download(&replica), wanted, "without its source");
            image = replica;
        }
    }
    server.verify_stopped();
}

#[test]
fn a_key_that_is_closed_withholds_its_images_until_it_is_opened_again() {
    let server = Server::with_own_keys();
    let client = server.user();
    let key = client.create_key("closed");
    let source = client.image("source", 1, 100_000);
    let sealed = client.replicate_with(&source, under(&key));
    let wanted = client.download(&sealed);
    let file = format!("/v2/images/{sealed}/file");
    let closings = [
        (
            "disable-key",
            json!({"key_id": key}),
            "IMG.0102",
            "IMG.0097",
        ),
        (
            "schedule-key-deletion",
            json!({"key_id": key, "pending_days": "7"}),
            "IMG.0102",
            "IMG.0097",
        ),
    ];
    for (call, body, of_source, of_target) in closings {
        client.kms(call, body).expect(200);
        client.get(&file).expect(403);
        client
            .copy(&sealed, json!({"name": "plain"}))
            .refused(400, of_source);
        client.copy(&source, under(&key)).refused(400, of_target);
        if call == "schedule-key-deletion" {
            client.key_call("cancel-key-deletion", &key);
        }
        client.key_call("enable-key", &key);
        assert_eq!(client.download(&sealed), wanted, "after {call}");
    }
    server.verify();
}

#[test]
fn a_shared_image_is_replicated_by_its_member_while_the_key_is_granted() {
    // Of whom a key lets read the embedded identity alone knows beforehand.
    let server = Server::embedded();
    let (owner, member) = (
        server.user(),
        server.admin().new_project("member", "member"),
    );
    let (theirs, own) = (owner.create_key("owner"), member.create_key("member"));
    let plain = owner.image("source", 1, 100_000);
    let sealed = owner.replicate_with(&plain, under(&theirs));
    let grant = || {
        let grant = json!({
            "key_id": theirs,
            "grantee_principal": member.user(),
            "operations": ["describe-key", "decrypt-datakey"],
        });
        let grant = owner.kms("create-grant", grant).expect(200).json();
        json!({"key_id": theirs, "grant_id": grant["grant_id"]})
    };
    let path = format!("/v2/images/{sealed}");
    owner.set(&sealed, "visibility", "shared");
    let path = format!("{path}/members");
    let share = || owner.post(&path, json!({"member": member.project()}));
    // Nobody is offered what the key would not open for him.
    share().expect(400);
    let granted = grant();
    share().expect(200);
    let path = format!("{path}/{}", member.project());
    member.put(&path, json!({"status": "accepted"})).expect(200);

    owner.kms("revoke-grant", granted).expect(200);
    member.copy(&sealed, under(&own)).refused(400, "IMG.0103");
    let granted = grant();
    let replica = member.replicate_with(&sealed, under(&own));
    assert_eq!(cmk(&member, &replica), json!(own));
    assert_eq!(member.download(&replica), owner.download(&sealed));

    owner.kms("revoke-grant", granted).expect(200);
    member.copy(&sealed, under(&own)).refused(400, "IMG.0103");
    assert_eq!(
        member.download(&replica),
        owner.download(&sealed),
        "what is sealed under its own key stays the member's"
    );
    server.verify();
}

#[test]
fn a_job_ends_with_the_keys_code_when_its_key_is_disabled_while_it_runs() {
    // Slow, so that it is asked again after its lease; the data key's life is what bounds the use.
    let slow = Options::config(config::reseal_pace(UNBOUNDED, 4 * MIB, 1));
    let server = Server::start(slow.with_own_keys());
    let client = server.user();
    let key = client.create_key("disabled");
    let source = upload(&client, 1, 16);
    let job = client.begin_copy(&source, under(&key));
    until("the job to move", || {
        (client.progress(&job)["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    client.key_call("disable-key", &key);
    let ended = client.job(&job);
    assert_eq!(ended.status(), "FAIL");
    assert_eq!(
        ended.document["error_code"], "IMG.0097",
        "{}",
        ended.document
    );
    nothing_is_left(&server, &client, 1);
}

#[test]
fn a_running_job_shows_its_bytes_and_can_be_cancelled() {
    let mut server = Server::start(Options::config(config::reseal_pace(UNBOUNDED, 16 * MIB, 2)));
    let client = server.user();
    let key = client.create_key("cancelled");
    let source = upload(&client, 1, 16);
    let job = client.begin_copy(&source, under(&key));
    let shown = until("the job to move", || {
        let shown = client.progress(&job);
        (shown["bytes_done"].as_u64() > Some(0)).then_some(shown)
    });
    assert_eq!(shown["bytes_total"], 16 * SEGMENT);
    assert!(shown["bytes_per_second"].as_u64() > Some(0), "{shown}");
    assert!(shown["estimated_end"].is_string(), "{shown}");
    let path = format!("/admin/v1/jobs/{job}");
    let stranger = server.admin().new_project("stranger", "member");
    stranger.delete(&path).refused(404, "IMG.0023");
    client.delete(&path).expect(202);
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "FAIL");
    assert_eq!(ended["error_code"], "IMG.0014");
    assert_eq!(ended["fail_reason"], "The job was cancelled.");
    client.delete(&path).expect(409);
    nothing_is_left(&server, &client, 1);
    assert_eq!(client.audit("cancelJob").len(), 1);
    server.verify_stopped();
}

#[test]
fn the_source_may_be_deleted_while_its_replica_is_made() {
    let mut server = Server::start(Options::config(
        config::reseal_pace(UNBOUNDED, 128 * MIB, 2) + &config::deletion_grace(0),
    ));
    let client = server.user();
    let key = client.create_key("key");
    let source = upload(&client, 1, 8);
    let job = client.begin_copy(&source, under(&key));
    client.delete(&format!("/v2/images/{source}")).expect(204);
    let job = client.job(&job);
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    client.download_same(&job.image(), segments(1, 8));
    until("the source's bytes to be gone", || {
        (server.stored() == 1).then_some(())
    });
    server.verify_stopped();
}

#[test]
fn five_replicas_of_one_project_do_not_hold_up_one_of_another() {
    // The share of a device that one process has.
    let server =
        Server::start(Options::config(config::reseal_pace(256 * MIB, UNBOUNDED, 2)).embedded());
    let many = server.user();
    let few = server.admin().new_project("few", "member");
    let start = |client: &Client, source: &str, key: &str| client.begin_copy(source, under(key));
    let sources = [upload(&many, 1, 6), upload(&few, 2, 6)];
    let keys = [many.create_key("many"), few.create_key("few")];
    let theirs: Vec<_> = (0..5)
        .map(|_| start(&many, &sources[0], &keys[0]))
        .collect();
    many.copy(&sources[0], under(&keys[0]))
        .refused(400, "IMG.0060");
    until("the five to run", || {
        let runs = |job: &String| many.show_job(job).json()["status"] == "RUNNING";
        theirs.iter().all(runs).then_some(())
    });
    let one = few.job(&start(&few, &sources[1], &keys[1]));
    assert_eq!(one.status(), "SUCCESS", "{}", one.document);
    // Half of the pace was its own: meanwhile the five had the other half, the work of one of them.
    let ended = |job: &&String| many.show_job(job).json()["status"] == "SUCCESS";
    let ended = theirs.iter().filter(ended).count();
    assert!(ended <= 2, "{ended} of the five have ended");
    for job in &theirs {
        let job = many.job(job);
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    }
    let again = many.begin_copy(&sources[0], under(&keys[0]));
    assert_eq!(many.job(&again).status(), "SUCCESS");
    server.verify();
}

#[test]
fn a_replica_that_the_disk_has_no_room_for_fails_and_leaves_nothing() {
    let disk = SmallDisk::new(160);
    let mut server = Server::start(Options {
        data: Some(disk.path().join("data")),
        ..Options::default()
    });
    let client = server.user();
    let key = client.create_key("key");
    let image = client.image("source", 1, 10 * MIB);
    let wanted = client.download(&image);
    disk.fill();
    let refused = client.copy(&image, under(&key));
    if refused.status == 200 {
        // The catalog had room for the job's row.
        let job = client.job(refused.json()["job_id"].as_str().expect("a job_id"));
        assert_eq!(job.status(), "FAIL", "{}", job.document);
        assert_eq!(job.document["fail_reason"], "The image storage is full.");
    } else {
        refused.expect(507);
    }
    assert_eq!(client.download(&image), wanted, "reads go on");
    disk.free();
    nothing_is_left(&server, &client, 1);
    let replica = client.replicate_with(&image, under(&key));
    assert_eq!(client.download(&replica), wanted);
    server.verify_stopped();
}

/// The replica is gone, its bytes are, and the project's usage is that of so many images.
pub(crate) fn nothing_is_left(server: &Server, client: &Client, images: usize) {
    assert_eq!(client.list().len(), images);
    until("the bytes to be gone", || {
        (server.staged() == 0).then_some(())
    });
    server.admin().verify_rows();
}

#[test]
fn another_server_goes_on_with_what_a_dead_one_noted() {
    let (mut first, text, _store) = shared("reseal_takeover");
    let (client, admin) = (first.user(), first.admin());
    let key = client.create_key("key");
    let source = upload(&client, 1, 16);
    let job = client.begin_copy(&source, under(&key));
    // Half of it: by then there are notes.
    until("the job to move", || {
        (client.progress(&job)["bytes_done"].as_u64() >= Some(8 * SEGMENT)).then_some(())
    });
    first.kill9();
    let second = Server::start(Options::config(text));
    let client = client.at(second.base());
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    client.download_same(&ended.image(), segments(1, 16));
    let attempts = attempts(&second.log());
    assert!(!attempts[0].found.is_empty(), "{attempts:?}");
    admin.at(second.base()).verify();
}

#[test]
fn of_two_servers_on_one_reseal_only_one_has_an_effect() {
    let (first, text, _store) = shared("reseal_zombie");
    let (client, admin) = (first.user(), first.admin());
    let key = client.create_key("key");
    let source = upload(&client, 1, 16);
    let job = client.begin_copy(&source, under(&key));
    until("the job to move", || {
        (client.progress(&job)["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    // It stands still, is believed dead, and comes back while its successor works.
    first.pause();
    let second = Server::start(Options::config(text));
    let client = client.at(second.base());
    until("the job to be taken over", || {
        (client.progress(&job)["attempt"].as_u64() > Some(1)).then_some(())
    });
    first.go_on();
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    client.download_same(&ended.image(), segments(1, 16));
    assert_eq!(client.list().len(), 2, "one replica");
    until("the other to notice", || {
        first.log().contains("job lost").then_some(())
    });
    admin.at(second.base()).verify();
}

/// A server on a PostgreSQL and a directory that others can join, slow enough to be caught at work.
fn shared(name: &str) -> (Server, String, tempfile::TempDir) {
    let store = tempfile::tempdir().expect("a directory");
    let text = [
        config::shared(&database::fresh(name), store.path()),
        config::jobs(4, 3),
        config::reseal_pace(UNBOUNDED, 128 * MIB, 4),
        config::log("info,calotype_blob=debug"),
    ];
    let text = text.concat();
    (Server::start(Options::config(text.clone())), text, store)
}
