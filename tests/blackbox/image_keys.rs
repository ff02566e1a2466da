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
    let mut server = Server::with_own_keys();
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
    let server = Server::with_own_keys();
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
    let text = format!(
        "{}\n{}",
        config::shared(&url, store.path()),
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

#[test]
fn an_image_is_rewrapped_where_that_is_allowed_and_the_answer_says_what_it_does_not_give() {
    let rewrap = |key: &str| json!({"name": "again", "cmk_id": key, "encryption_mode": "rewrap"});
    let strict = Server::with_own_keys();
    let client = strict.user();
    let keys = ["first", "second"].map(|alias| client.create_key(alias));
    let (_, image) = sealed(&client, &keys[0]);
    let before = client.state();
    client
        .copy(&image, rewrap(&keys[1]))
        .refused(400, "IMG.0001");
    assert_eq!(client.state(), before);

    let server = Server::start(Options::config(config::rewrap()).with_own_keys());
    let client = server.user();
    let keys = ["first", "second"].map(|alias| client.create_key(alias));
    let (source, image) = sealed(&client, &keys[0]);
    client
        .copy(&source, rewrap(&keys[1]))
        .refused(400, "IMG.0001");
    let stored = server.stored();
    let accepted = client.copy(&image, rewrap(&keys[1])).expect(200).json();
    let warning = client::text(&accepted["calotype"]["warning"]);
    assert!(warning.contains("can still open"), "{accepted}");
    let job = client.job(&client::text(&accepted["job_id"]));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    let again = job.image();
    assert_eq!(client.show(&again)["__system__cmkid"], keys[1].as_str());
    assert_eq!(client.download(&again), wanted());
    assert_eq!(server.stored(), stored, "no byte was sealed again");
    // Each opens by its own key and no other.
    client.key_call("disable-key", &keys[0]);
    assert_eq!(read(&client, &image), 403);
    assert_eq!(client.download(&again), wanted());
    client.key_call("enable-key", &keys[0]);
    client.key_call("disable-key", &keys[1]);
    assert_eq!(client.download(&image), wanted());
    assert_eq!(read(&client, &again), 403);
    // What is not rewrapped has nothing to be warned of.
    let accepted = client.copy(&source, json!({"name": "plain"})).expect(200);
    assert!(accepted.json().get("calotype").is_none(), "{accepted}");
    server.verify();
}

#[test]
fn the_strict_copy_takes_a_role_for_keys_where_the_other_asks_the_key_service_alone() {
    let server = Server::with_own_keys();
    let admin = server.admin();
    for name in ["IMS FullAccess", "KMS Administrator"] {
        let made = admin.post("/identity/v3/roles", json!({"role": {"name": name}}));
        // A Keystone of several tests may have it.
        assert!(matches!(made.status, 201 | 409), "{made}");
    }
    let owner = admin.new_project("strict", "member");
    let (project, name) = (owner.project(), owner.project_name());
    let images = admin.new_user("images", project, name, "IMS FullAccess");
    let both = admin.new_user("both", project, name, "IMS FullAccess");
    let role = admin.get("/identity/v3/roles?name=KMS%20Administrator");
    let role = client::text(&role.expect(200).json()["roles"][0]["id"]);
    let path = format!(
        "/identity/v3/projects/{}/users/{}/roles/{role}",
        owner.project(),
        both.user()
    );
    admin.put(&path, Value::Null).expect(204);
    let both = both.again();

    let key = owner.create_key("key");
    let (source, image) = sealed(&owner, &key);
    let strict = |by: &Client, image: &str, key: Option<&str>| {
        let body = json!({"name": "replica", "cmk_id": key});
        by.post(&format!("/v2.1/cloudimages/{image}/copy"), body)
    };
    let before = owner.state();
    strict(&images, &source, Some(&key)).refused(400, "IMG.0099");
    strict(&images, &image, None).refused(400, "IMG.0103");
    assert_eq!(owner.state(), before);
    let done = |by: &Client, accepted: Value| {
        let job = by.job(&client::text(&accepted["job_id"]));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        assert_eq!(by.download(&job.image()), wanted());
    };
    // Without a key there is nothing to be asked; with both roles, everything is answered.
    for (by, image, key) in [
        (&images, &source, None),
        (&both, &source, Some(key.as_str())),
        (&both, &image, None),
    ] {
        done(by, strict(by, image, key).expect(200).json());
    }
    // The other leaves it to the key service, which knows the project's key.
    done(
        &images,
        images
            .copy(&source, json!({"name": "r", "cmk_id": key}))
            .expect(200)
            .json(),
    );
    server.verify();
}
