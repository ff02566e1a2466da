//! A full disk refuses what it can't hold, loses nothing, serves what it has, and needs no one's help once
//! there is room again.

use calotype_tests::small_disk::SmallDisk;
use calotype_tests::{Client, Content, Digests, Options, Server, until};
use serde_json::json;

const MIB: u64 = 1 << 20;

fn server_on(disk: &SmallDisk) -> Server {
    Server::start(Options {
        data: Some(disk.path().join("data")),
        ..Options::default()
    })
}

#[test]
fn an_upload_that_does_not_fit_is_refused_and_the_image_waits_for_other_bytes() {
    let disk = SmallDisk::new(96);
    let mut server = server_on(&disk);
    let client = server.user();
    let kept = client.image("kept", 1, 10 * MIB);
    let image = client.create("too large");
    let answer = client.upload_stream(&image, Content::new(2, 200 * MIB), 200 * MIB);
    refused(answer);
    assert_eq!(client.show(&image)["status"], "queued");
    assert_eq!(server.staged(), 0, "its bytes are gone");
    server.admin().verify_rows();

    let wanted = Digests::of(Content::new(3, 5 * MIB));
    let again = client.upload_stream(&image, Content::new(3, 5 * MIB), 5 * MIB);
    again.expect("an answer").expect(204);
    assert_eq!(client.download(&image), wanted);
    assert_eq!(
        client.download(&kept),
        Digests::of(Content::new(1, 10 * MIB))
    );
    server.verify_stopped();
}

#[test]
fn reads_go_on_while_the_disk_is_full_and_writes_when_there_is_room_again() {
    let disk = SmallDisk::new(96);
    let mut server = server_on(&disk);
    let client = server.user();
    let kept = client.image("kept", 1, 10 * MIB);
    let image = client.create("later");
    let wanted = Digests::of(Content::new(1, 10 * MIB));

    disk.fill();
    refused(client.upload_stream(&image, Content::new(2, 10 * MIB), 10 * MIB));
    let mut refusals = 0;
    for _ in 0..200 {
        // The catalog's own file has some room left in it, so not every record is refused.
        let made = client.post("/v2/images", json!({"name": "x".repeat(200)}));
        assert!(matches!(made.status, 201 | 507), "{made}");
        refusals += usize::from(made.status == 507);
        if refusals == 3 {
            break;
        }
    }
    assert_eq!(client.download(&kept), wanted);
    assert_eq!(client.show(&kept)["status"], "active");
    assert!(!client.list().is_empty());
    Client::anonymous(server.base()).get("/healthz").expect(200);

    disk.free();
    client
        .post("/v2/images", json!({"name": "after"}))
        .expect(201);
    until("the refused upload's image to take bytes again", || {
        (client.show(&image)["status"] == "queued").then_some(())
    });
    let again = client.upload_stream(&image, Content::new(1, 10 * MIB), 10 * MIB);
    again.expect("an answer").expect(204);
    assert_eq!(client.download(&image), wanted);
    assert_eq!(client.download(&client.replicate(&kept, "replica")), wanted);
    until("the store to be tidy", || {
        (server.staged() == 0).then_some(())
    });
    server.admin().verify_rows();
    server.verify_stopped();
}

#[test]
fn a_server_that_is_killed_on_a_full_disk_starts_again_when_there_is_room() {
    let disk = SmallDisk::new(96);
    let mut server = server_on(&disk);
    let client = server.user();
    let kept = client.image("kept", 1, 10 * MIB);
    let wanted = Digests::of(Content::new(1, 10 * MIB));
    for round in 0..5 {
        let client = client.at(server.base());
        let image = client.create("interrupted");
        disk.fill();
        refused(client.upload_stream(&image, Content::new(round, 10 * MIB), 10 * MIB));
        server.kill9();
        disk.free();
        server.restart();
        let client = client.at(server.base());
        assert_eq!(client.download(&kept), wanted);
        assert_eq!(client.show(&image)["status"], "queued");
        assert_eq!(server.staged(), 0);
        server.admin().verify_rows();
    }
    server.verify_stopped();
}

/// The answer to an upload for which there is no room.
fn refused(answer: Result<calotype_tests::Answer, impl std::fmt::Debug>) {
    answer
        .expect("an answer, not a broken connection")
        .expect(507);
}
