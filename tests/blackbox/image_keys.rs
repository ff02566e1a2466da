//! Images under customers' keys of the service's own key service: who may make and read them, and what ends that.

use calotype_tests::{Client, Content, Digests, Options, Server, client, config, database, until};
use serde_json::{Value, json};

const LENGTH: u64 = 300_000;

fn wanted() -> Digests {
    Digests::of(Content::new(1, LENGTH))
}

/// An image of the caller's, and a replica of it under a key.
fn sealed(client: &Client, key: &str) -> (String, String) {
    let source = client.image("source", 1, LENGTH);
    let replica = replicate(client, &source, Some(key));
    (source, replica)
}

fn replicate(client: &Client, source: &str, key: Option<&str>) -> String {
    let answer = client.copy(source, json!({"name": "replica", "cmk_id": key}));
    let job = client::text(&answer.expect(200).json()["job_id"]);
    let job = client.job(&job);
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    job.image()
}

fn read(client: &Client, image: &str) -> u16 {
    client.get(&format!("/v2/images/{image}/file")).status
}

#[test]
fn a_replica_under_a_key_is_read_while_the_key_is_enabled() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let (key, other) = (client.create_key("k"), client.create_key("other"));
    let (source, image) = sealed(&client, &key);
    assert_eq!(client.show(&image)["__system__cmkid"], key);
    assert_eq!(client.download(&image), wanted());
    let again = replicate(&client, &image, Some(&other));
    let plain = replicate(&client, &image, None);
    assert_eq!(client.download(&again), wanted());

    let refused = |source: &str, key: Option<&str>, code: &str| {
        let answer = client.copy(source, json!({"name": "no", "cmk_id": key}));
        answer.refused(400, code);
    };
    client.key_call("disable-key", &key);
    assert_eq!(read(&client, &image), 403);
    refused(&image, Some(&other), "IMG.0102");
    refused(&image, None, "IMG.0102");
    refused(&source, Some(&key), "IMG.0097");
    assert_eq!(client.download(&again), wanted(), "it has a key of its own");
    assert_eq!(client.download(&plain), wanted());
    client.key_call("enable-key", &key);
    assert_eq!(client.download(&image), wanted());

    client.key_call("rotate-on-demand", &key);
    let newer = replicate(&client, &source, Some(&key));
    server.restart();
    let client = server.user();
    for image in [&image, &newer] {
        assert_eq!(client.download(image), wanted());
    }
    let days = json!({"key_id": key, "pending_days": "7"});
    client.kms("schedule-key-deletion", days).expect(200);
    assert_eq!(read(&client, &image), 403);
    assert_eq!(read(&client, &newer), 403);
    let used = client.audit("copyImage");
    assert!(
        used.iter()
            .any(|line| line["detail"]["target_key"] == key.as_str())
    );
    server.verify();
}

#[test]
fn a_key_that_is_missing_or_not_the_callers_makes_no_replica_until_it_is_granted() {
    let server = Server::with_defaults();
    let (client, other) = (server.user(), server.admin().new_project("other", "member"));
    let foreign = other.create_key("k");
    let source = client.image("source", 1, LENGTH);
    let refused = |key: &str, code: &str| {
        let answer = client.copy(&source, json!({"name": "no", "cmk_id": key}));
        answer.refused(400, code);
    };
    refused("0d0466b0-e727-4d9c-b35d-f84bb474a37f", "IMG.0095");
    refused("alias/k", "IMG.0095");
    refused(&foreign, "IMG.0099");
    let body = json!({"key_id": foreign, "grantee_principal": client.user(),
        "operations": ["describe-key", "encrypt-datakey"]});
    let granted = other.kms("create-grant", body).expect(200).json();
    let image = replicate(&client, &source, Some(&foreign));
    assert_eq!(read(&client, &image), 403, "it may seal, and not open");
    let body = json!({"key_id": foreign, "grantee_principal": client.user(),
        "operations": ["decrypt-datakey"]});
    other.kms("create-grant", body).expect(200);
    assert_eq!(client.download(&image), wanted());
    let body = json!({"key_id": foreign, "grant_id": granted["grant_id"]});
    other.kms("revoke-grant", body).expect(200);
    assert_eq!(
        read(&client, &image),
        403,
        "describe-key went with the grant"
    );
    refused(&foreign, "IMG.0099");
}

#[test]
fn what_a_key_sealed_is_lost_with_the_key() {
    let url = database::fresh("shredding");
    let server = Server::start(Options::config(config::postgres(&url)));
    let client = server.user();
    let key = client.create_key("k");
    let (source, image) = sealed(&client, &key);
    let days = json!({"key_id": key, "pending_days": 7});
    client.kms("schedule-key-deletion", days).expect(200);
    database::sql(
        &url,
        "update master_keys set deletion_at = 1 where state = 'pending'",
    );
    until("the key to be deleted", || {
        (client.kms("describe-key", json!({"key_id": key})).status == 404).then_some(())
    });
    let versions = format!("select count(*) from master_key_versions where key_id = '{key}'");
    assert_eq!(database::sql(&url, &versions).trim(), "0");
    assert_eq!(read(&client, &image), 403);
    let answer = client.copy(&image, json!({"name": "no"}));
    answer.refused(400, "IMG.0101");
    assert_eq!(client.download(&source), wanted());
    let lines = client.audit("deleteKey");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["resource_id"], key.as_str());
    client.delete(&format!("/v2/images/{image}")).expect(204);
    server.verify();
}

#[test]
fn two_servers_have_the_same_keys_at_every_instant() {
    let url = database::fresh("two_servers_keys");
    let store = tempfile::tempdir().expect("a directory");
    let root_key = store.path().join("root.key");
    let blobs = store.path().join("blobs");
    let text = format!(
        "{}\n{}",
        config::shared(&url, &blobs, &root_key),
        config::keys(20)
    );
    let first = Server::start(Options::config(text.clone()));
    let second = Server::start(Options::config(text));
    let here = first.user();
    let there = here.at(second.base());

    // Many creators on both, and not one key too many.
    let made: Vec<u16> = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..8)
            .map(|creator| {
                let client = if creator % 2 == 0 { &here } else { &there };
                scope.spawn(move || {
                    let make = |n| {
                        let alias = format!("k-{creator}-{n}");
                        client.kms("create-key", json!({"key_alias": alias})).status
                    };
                    (0..5).map(make).collect::<Vec<u16>>()
                })
            })
            .collect();
        let each = creators.into_iter();
        each.flat_map(|creator| creator.join().expect("no panic"))
            .collect()
    });
    assert_eq!(made.iter().filter(|status| **status == 200).count(), 20);
    assert_eq!(there.kms_get("user-instances").json()["instance_num"], 20);

    let listed = here.kms("list-keys", json!({})).expect(200).json();
    let key = client::text(&listed["keys"][0]);
    let (_, image) = sealed(&here, &key);
    for _ in 0..5 {
        assert_eq!(there.download(&image), wanted());
        here.key_call("disable-key", &key);
        assert_eq!(read(&there, &image), 403);
        there.key_call("enable-key", &key);
        assert_eq!(read(&here, &image), 200);
    }

    // One rotates the root key, and the other goes on with the file that both have.
    let admin = first.admin();
    admin
        .post("/admin/v1/root-key/rotate", Value::Null)
        .expect(200);
    there.key_call("rotate-on-demand", &key);
    until("everything to be rewrapped", || {
        let retired = admin.post("/admin/v1/root-key/retire", Value::Null);
        (retired.status == 200).then_some(())
    });
    for client in [&here, &there] {
        client.key_call("rotate-on-demand", &key);
        assert_eq!(client.download(&image), wanted());
    }
    let text = std::fs::read_to_string(&root_key).expect("the root keys");
    assert_eq!(text.lines().count(), 1);
}
