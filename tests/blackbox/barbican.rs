//! The server with customers' keys in a real Barbican.

use std::path::Path;

use calotype_tests::openstack::{OpenStack, User};
use calotype_tests::{Client, Options, Server, config, until};
use serde_json::json;

/// A server, and the owner of the secrets that its images are sealed under.
struct World {
    openstack: OpenStack,
    owner: User,
    service: User,
    server: Server,
    _secrets: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let openstack = OpenStack::connect();
        let (owner, service) = (openstack.user("member"), openstack.user("service"));
        let secrets = tempfile::tempdir().expect("a directory");
        let password = secrets.path().join("password");
        std::fs::write(&password, format!("{}\n", service.password)).expect("the password");
        let server = Server::start(Options::config(text(&openstack, &service, &password)));
        Self {
            openstack,
            owner,
            service,
            server,
            _secrets: secrets,
        }
    }

    fn open(&self, key: &str) {
        self.openstack
            .let_read(&self.owner, key, &[&self.service], true);
    }

    fn close(&self, key: &str) {
        self.openstack.let_read(&self.owner, key, &[], true);
    }
}

fn text(openstack: &OpenStack, service: &User, password: &Path) -> String {
    let region = openstack.region(openstack.barbican());
    let login = (
        service.name.as_str(),
        service.project_name.as_str(),
        password,
    );
    let barbican = config::barbican(openstack.keystone(), &region, login);
    barbican + &config::log("trace")
}

/// Replicates under a key; the result is the replica.
fn under(client: &Client, image: &str, key: &str) -> String {
    let accepted = client.copy(image, json!({"name": "replica", "cmk_id": key}));
    let accepted = accepted.expect(200).json();
    let job = client.job(accepted["job_id"].as_str().expect("a job_id"));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    job.image()
}

fn status(client: &Client, image: &str) -> u16 {
    client.get(&format!("/v2/images/{image}/file")).status
}

#[test]
fn an_image_under_a_secret_is_readable_while_the_service_may_read_the_secret() {
    let world = World::new();
    let client = world.server.user();
    let source = client.image("source", 1, 200_000);
    let wanted = client.download(&source);
    let key = world.openstack.key(&world.owner);
    world.open(&key);
    let replica = under(&client, &source, &key);
    assert_eq!(client.show(&replica)["__system__cmkid"], key);
    assert_eq!(client.download(&replica), wanted);

    world.close(&key);
    until("the image to be closed", || {
        (status(&client, &replica) == 403).then_some(())
    });
    let refused = client.copy(&replica, json!({"name": "another"}));
    refused.refused(400, "IMG.0103");
    world.open(&key);
    until("the image to be open again", || {
        (status(&client, &replica) == 200).then_some(())
    });
    assert_eq!(client.download(&replica), wanted);
    let plain = client.copy(&replica, json!({"name": "plain"})).expect(200);
    let job = plain.json()["job_id"]
        .as_str()
        .expect("a job_id")
        .to_owned();
    let plain = client.job(&job).image();

    world.openstack.delete(&world.owner, &key);
    until("the image to be lost with its key", || {
        (status(&client, &replica) == 403).then_some(())
    });
    client
        .copy(&replica, json!({"name": "another"}))
        .refused(400, "IMG.0101");
    assert_eq!(client.download(&plain), wanted);
}

#[test]
fn secrets_that_cant_be_used_are_refused_and_change_nothing() {
    let world = World::new();
    let client = world.server.user();
    let source = client.image("source", 1, 1000);
    let closed = world.openstack.key(&world.owner);
    let short = json!({"payload": "AAECAwQFBgcICQoLDA0ODw=="});
    let short = world.openstack.secret(&world.owner, &short);
    world.open(&short);
    let before = client.state();
    for (key, code) in [
        ("00000000-0000-4000-8000-000000000000", "IMG.0095"),
        ("http://evil.example/v1/secrets/k1", "IMG.0095"),
        (closed.as_str(), "IMG.0099"),
        (short.as_str(), "IMG.0097"),
    ] {
        let refused = client.copy(&source, json!({"name": "replica", "cmk_id": key}));
        refused.refused(400, code);
    }
    assert_eq!(client.state(), before);
    // Neither the service's password nor a token of Keystone's is in the log, though it is at its most talkative.
    let log = world.server.log();
    assert!(log.contains(" TRACE "), "{log}");
    for secret in [world.service.password.as_str(), "gAAAA"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
