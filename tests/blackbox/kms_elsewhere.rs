//! One server is the key service of another, over HTTP: customers' keys elsewhere, with everything that can be the matter
//! with them and with the way to them.

use std::path::Path;

use calotype_tests::config::CUSTOMERS_AT_THE_KMS;
use calotype_tests::{Client, Content, Digests, Front, Options, Server, client, config};
use calotype_tests::{database, memory, until};
use serde_json::{Value, json};

use crate::doctor::doctor;

const LENGTH: u64 = 300_000;
const MIB: u64 = 1 << 20;
const UNKNOWN: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const USES: [&str; 3] = ["describe-key", "encrypt-datakey", "decrypt-datakey"];
const PASSWORD: &str = "pass-service-member-phrase";

/// A key service, the way to it, and a server whose customers' keys are there. Each has its own catalog and users.
struct World {
    keys: Server,
    front: Front,
    /// Whose keys they are.
    owner: Client,
    /// The server's user at the key service.
    service: Client,
    server: Server,
    client: Client,
    _secrets: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with("", "")
    }

    /// With these additions to the configurations of the key service and of the server.
    fn with(of_keys: &str, of_server: &str) -> Self {
        Self::showing(of_keys, |front, _, secrets| {
            let password = secrets.join("password");
            std::fs::write(&password, PASSWORD).expect("the password");
            let login = ("service-member", "service", password.as_path());
            let keystone = format!("{}/identity", front.url());
            config::kms(&keystone, "service", login) + of_server
        })
    }

    /// With a server that is configured by what there is: the way, its user, and a directory for secrets.
    fn showing(of_keys: &str, configure: impl FnOnce(&Front, &Client, &Path) -> String) -> Self {
        let front = Front::open();
        let text = config::public_url(front.url()) + of_keys;
        let keys = Server::start(Options::config(text));
        front.lead_to(keys.base());
        let admin = keys.admin();
        let (service, owner) = (
            admin.new_project("service", "member"),
            admin.new_project("owner", "member"),
        );
        let secrets = tempfile::tempdir().expect("a directory");
        let text = configure(&front, &service, secrets.path());
        let server = Server::start(at_the_kms(text));
        let client = server.user();
        Self {
            keys,
            front,
            owner,
            service,
            server,
            client,
            _secrets: secrets,
        }
    }

    /// A key that the server may use.
    fn key(&self, alias: &str) -> String {
        let key = self.owner.create_key(alias);
        grant(&self.owner, &key, &self.service);
        key
    }

    /// An image, and a replica of it under a key.
    fn sealed(&self, key: &str) -> (String, String) {
        let source = self.client.image("source", 1, LENGTH);
        let replica = self.client.replicate_with(&source, under(key));
        (source, replica)
    }

    fn read(&self, image: &str) -> u16 {
        self.client.get(&format!("/v2/images/{image}/file")).status
    }

    /// The key service comes back after its end.
    fn bring_keys_back(&mut self) {
        self.keys.restart();
        self.front.lead_to(self.keys.base());
        self.owner = self.owner.at(self.keys.base());
    }

    /// The images and jobs, and how many blobs are stored or being written.
    fn state(&self) -> ((Vec<Value>, Value), usize, usize) {
        let (stored, staged) = (self.server.stored(), self.server.staged());
        (self.client.state(), stored, staged)
    }
}

fn at_the_kms(text: String) -> Options {
    let (variable, value) = CUSTOMERS_AT_THE_KMS;
    Options {
        environment: vec![(variable.to_owned(), value.to_owned())],
        ..Options::config(text)
    }
}

fn under(key: &str) -> Value {
    json!({"name": "replica", "cmk_id": key})
}

fn wanted() -> Digests {
    Digests::of(Content::new(1, LENGTH))
}

/// Grants the use of a key; the result is the grant, to be revoked.
fn grant(owner: &Client, key: &str, to: &Client) -> Value {
    let body = json!({"key_id": key, "grantee_principal": to.user(), "operations": USES});
    let made = owner.kms("create-grant", body).expect(200).json();
    json!({"key_id": key, "grant_id": made["grant_id"]})
}

#[test]
fn images_are_sealed_and_opened_under_keys_of_another_server() {
    let mut world = World::new();
    let (first, second) = (world.key("first"), world.key("second"));
    let (_, image) = world.sealed(&first);
    let client = &world.client;
    assert_eq!(client.show(&image)["__system__cmkid"], first.as_str());
    let again = client.replicate_with(&image, under(&second));
    assert_eq!(client.show(&again)["__system__cmkid"], second.as_str());
    let plain = client.replicate(&again, "plain");
    assert!(client.show(&plain).get("__system__cmkid").is_none());
    for image in [&image, &again, &plain] {
        assert_eq!(client.download(image), wanted());
    }
    // What was unwrapped before is forgotten with the process, and what was wrapped before a rotation opens after it.
    let opened = world.front.asked("decrypt-datakey").len();
    world.owner.key_call("rotate-on-demand", &first);
    world.server.restart();
    let client = world.server.user();
    for image in [&image, &again, &plain] {
        assert_eq!(client.download(image), wanted());
    }
    assert_eq!(world.front.asked("decrypt-datakey").len(), opened + 2);
    assert_eq!(world.front.asked("encrypt-datakey").len(), 2);
    world.server.verify();
}

#[test]
fn data_keys_that_went_to_another_server_are_in_the_vaults_memory_alone() {
    let mut world = World::new();
    let key = world.key("key");
    let (_, image) = world.sealed(&key);
    // One process has wrapped the key, and another has unwrapped it.
    let wrapped = data_keys(&world);
    guarded(&world, &wrapped);
    world.server.restart();
    world.client = world.server.user();
    assert_eq!(world.client.download(&image), wanted());
    guarded(&world, &wrapped);
}

/// The data keys that came by: the first half of each block.
fn data_keys(world: &World) -> Vec<String> {
    let asked = world.front.asked("encrypt-datakey").into_iter();
    let keys = asked.map(|asked| {
        let body: Value = serde_json::from_slice(&asked.body).expect("a document");
        client::text(&body["plain_text"])[..64].to_lowercase()
    });
    keys.collect()
}

fn guarded(world: &World, keys: &[String]) {
    assert!(!keys.is_empty());
    let at_hand = |found: &memory::Found| found.form == "bytes" && found.is_guarded();
    // What the HTTP library had is erased a moment after its connection has ended.
    until("the key to be in the vault alone", || {
        let search = memory::search_for(world.server.pid(), keys);
        if search.refused {
            assert!(!rustix::process::geteuid().is_root());
            return Some(());
        }
        assert!(search.found.iter().any(at_hand));
        search.found.iter().all(at_hand).then_some(())
    });
}

#[test]
fn a_server_shows_its_access_key_to_the_key_service_of_another() {
    let world = World::showing("", |front, service, secrets| {
        let path = format!("/identity/v3/users/{}/credentials/OS-EC2", service.user());
        let made = service.post(&path, json!({"tenant_id": service.project()}));
        let made = made.expect(201).json();
        let secret = secrets.join("secret");
        let text = client::text(&made["credential"]["secret"]);
        std::fs::write(&secret, text).expect("the secret");
        let id = client::text(&made["credential"]["access"]);
        let access_key = (id.as_str(), service.project(), secret.as_path());
        config::kms_signed(&format!("{}/kms", front.url()), access_key)
    });
    let key = world.key("key");
    let (source, image) = world.sealed(&key);
    assert_eq!(world.client.download(&image), wanted());
    let asked = world.front.asked("encrypt-datakey");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].token, "", "it was signed");
    assert_eq!(
        world.front.asked("auth/tokens").len(),
        0,
        "and never logs in"
    );
    world.owner.key_call("disable-key", &key);
    assert_eq!(world.read(&image), 403);
    let refused = world.client.copy(&source, under(&key));
    refused.refused(400, "IMG.0097");
}

#[test]
fn the_doctor_looks_whether_the_key_service_knows_the_service() {
    let world = World::new();
    let secrets = tempfile::tempdir().expect("a directory");
    let password = secrets.path().join("password");
    let looked = |word: &str| {
        std::fs::write(&password, word).expect("the password");
        let login = ("service-member", "service", password.as_path());
        let keystone = format!("{}/identity", world.front.url());
        let data = secrets.path().join("data");
        doctor(&data, &config::kms(&keystone, "service", login), &[])
    };
    let known = looked(PASSWORD);
    assert_eq!(known.finding("kms", "knows the service")["state"], "ok");
    assert_eq!(world.front.asked("list-keys").len(), 1);
    looked("not-the-password").refuses("kms", "the KMS");
}

#[test]
fn each_key_of_another_server_that_cant_be_used_is_refused_with_its_code_and_changes_nothing() {
    let url = database::fresh("kms_elsewhere");
    let world = World::with(&config::postgres(&url), "");
    let (owner, client) = (&world.owner, &world.client);
    let key = world.key("key");
    let other = world.key("other");
    let foreign = owner.create_key("not-granted");
    let revoked = owner.create_key("granted-once");
    let once = grant(owner, &revoked, &world.service);
    let (source, image) = world.sealed(&key);
    let under_revoked = client.replicate_with(&source, under(&revoked));
    assert_eq!(client.download(&under_revoked), wanted());
    owner.kms("revoke-grant", once).expect(200);
    let metal = json!({"name": "metal", "disk_format": "raw", "container_format": "bare",
        "virtual_env_type": "Ironic"});
    let metal = client.create_with(metal);
    client.upload(&metal, "bytes").expect(204);

    let before = world.state();
    let refused = |image: &str, key: &str, code: &str| {
        client.copy(image, under(key)).refused(400, code);
    };
    refused(&source, UNKNOWN, "IMG.0095");
    for malformed in ["alias/key", "no key", "0d0466b0e7274d9cb35df84bb474a37f"] {
        refused(&source, malformed, "IMG.0095");
    }
    refused(&image, &key, "IMG.0096");
    refused(&metal, &key, "IMG.0118");
    refused(&source, &foreign, "IMG.0099");
    refused(&source, &revoked, "IMG.0099");
    refused(&under_revoked, &key, "IMG.0103");
    client
        .copy(&under_revoked, json!({"name": "plain"}))
        .refused(400, "IMG.0103");
    assert_eq!(world.read(&under_revoked), 403);
    let closings = [
        ("disable-key", json!({"key_id": key})),
        (
            "schedule-key-deletion",
            json!({"key_id": key, "pending_days": "7"}),
        ),
    ];
    for (call, body) in closings {
        owner.kms(call, body).expect(200);
        refused(&source, &key, "IMG.0097");
        refused(&image, &other, "IMG.0102");
        let plain = client.copy(&image, json!({"name": "plain"}));
        plain.refused(400, "IMG.0102");
        assert_eq!(world.read(&image), 403, "after {call}");
        if call == "schedule-key-deletion" {
            owner.key_call("cancel-key-deletion", &key);
        }
        owner.key_call("enable-key", &key);
        assert_eq!(client.download(&image), wanted(), "after {call}");
    }
    let days = json!({"key_id": key, "pending_days": 7});
    owner.kms("schedule-key-deletion", days).expect(200);
    database::sql(
        &url,
        "update master_keys set deletion_at = 1 where state = 'pending'",
    );
    until("the key to be deleted", || {
        (owner.kms("describe-key", json!({"key_id": key})).status == 404).then_some(())
    });
    refused(&source, &key, "IMG.0095");
    refused(&image, &other, "IMG.0101");
    assert_eq!(world.read(&image), 403);
    assert_eq!(world.state(), before);

    grant(owner, &revoked, &world.service);
    assert_eq!(client.download(&under_revoked), wanted(), "granted again");
    grant(owner, &foreign, &world.service);
    let replica = client.replicate_with(&source, under(&foreign));
    assert_eq!(client.download(&replica), wanted());
}

#[test]
fn a_key_service_that_is_away_is_waited_for_and_nothing_is_made_meanwhile() {
    let mut world = World::new();
    let key = world.key("key");
    let (source, image) = world.sealed(&key);
    let before = world.state();
    let refused = |world: &World| {
        for answer in [
            world.client.copy(&source, under(&key)),
            world.client.copy(&image, json!({"name": "plain"})),
            world.client.get(&format!("/v2/images/{image}/file")),
        ] {
            let answer = answer.expect(503);
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        assert_eq!(world.state(), before);
        // What is not under its keys goes on.
        assert_eq!(world.client.download(&source), wanted());
    };
    // Dead, and then there without a word.
    world.keys.kill9();
    refused(&world);
    world.bring_keys_back();
    until("the image to be open again", || {
        (world.read(&image) == 200).then_some(())
    });
    world.keys.pause();
    refused(&world);
    world.keys.go_on();
    until("the image to be open again", || {
        (world.read(&image) == 200).then_some(())
    });
    assert_eq!(world.client.download(&image), wanted());
    let replica = world.client.replicate_with(&source, under(&key));
    assert_eq!(world.client.download(&replica), wanted());
    world.server.verify();
}

#[test]
fn a_key_service_that_throttles_or_wants_a_permission_is_told_by_its_code() {
    let world = World::new();
    let key = world.key("key");
    let (source, image) = world.sealed(&key);
    let before = world.state();
    let flat =
        r#"{"error_code":"APIGW.0308","error_msg":"The throttling threshold has been reached"}"#;
    let nested =
        r#"{"error":{"error_code":"KMS.0304","error_msg":"You do not have beta test permission"}}"#;
    for (head, body, status, code) in [
        (
            "429 Too Many Requests\r\nRetry-After: 1",
            flat,
            400,
            "IMG.0187",
        ),
        ("403 Forbidden", nested, 400, "IMG.0100"),
    ] {
        world.front.answer_instead("/kms/", head, body);
        let body = under(&key);
        world.client.copy(&source, body).refused(status, code);
        let body = json!({"name": "plain"});
        world.client.copy(&image, body).refused(status, code);
        assert_ne!(world.read(&image), 200);
        assert_eq!(world.state(), before);
        world.front.let_through();
    }
    assert_eq!(world.client.download(&image), wanted());
}

/// A job that is slow enough to be caught at work, with its key service.
fn at_work() -> (World, String, String) {
    let world = World::with("", &config::reseal_pace(1 << 40, 8 * MIB, 2));
    let key = world.key("key");
    let source = world.client.image("source", 1, 96 * MIB);
    let job = world.client.begin_copy(&source, under(&key));
    until("the job to move", || {
        (world.client.progress(&job)["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    (world, source, job)
}

/// A job that can't have its key has not failed, and what it makes can't be read.
fn waits(client: &Client, job: &str, source: &str) {
    let shown = client.show_job(job).expect(200).json();
    let status = shown["status"].as_str();
    assert!(matches!(status, Some("INIT" | "RUNNING")), "{shown}");
    let images = client.list();
    let made = images.iter().find(|image| image["id"] != source);
    let made = client::text(&made.expect("the replica")["id"]);
    assert_ne!(client.show(&made)["status"], "active");
    let read = client.get(&format!("/v2/images/{made}/file"));
    assert_ne!(read.status, 200, "{read}");
}

#[test]
fn a_job_whose_key_service_hangs_waits_for_it_and_goes_on_with_the_right_bytes() {
    let (mut world, source, job) = at_work();
    // The next attempt has to ask for the key that the process forgot.
    world.keys.pause();
    world.server.restart();
    world.client = world.client.at(world.server.base());
    until("the job to be put off", || {
        world.server.log().contains("job put off").then_some(())
    });
    waits(&world.client, &job, &source);
    world.keys.go_on();
    ends_well(&world, &source, &job);
}

#[test]
fn a_job_whose_key_service_dies_or_throttles_waits_for_it_and_goes_on_with_the_right_bytes() {
    let (mut world, source, job) = at_work();
    world.front.answer_instead(
        "/kms/",
        "429 Too Many Requests\r\nRetry-After: 1",
        r#"{"error_code":"APIGW.0308"}"#,
    );
    world.server.restart();
    world.client = world.client.at(world.server.base());
    let put_off = |world: &World| world.server.log().matches("job put off").count();
    until("the job to be put off", || {
        (put_off(&world) > 0).then_some(())
    });
    waits(&world.client, &job, &source);
    world.keys.kill9();
    world.front.let_through();
    let so_far = put_off(&world);
    until("the job to be put off again", || {
        (put_off(&world) > so_far).then_some(())
    });
    waits(&world.client, &job, &source);
    world.bring_keys_back();
    ends_well(&world, &source, &job);
}

fn ends_well(world: &World, source: &str, job: &str) {
    let ended = world.client.job(job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    let shown = world.client.show(&ended.image());
    assert!(shown["__system__cmkid"].is_string(), "{shown}");
    let wanted = world.client.download(source);
    assert_eq!(world.client.download(&ended.image()), wanted);
    world.server.verify();
}

#[test]
fn a_key_service_with_the_same_users_is_asked_with_the_callers_own_token() {
    // One catalog and store for both, so that the callers of one are known to the other.
    let store = tempfile::tempdir().expect("a directory");
    let url = database::fresh("kms_same_users");
    let shared = config::shared(&url, store.path());
    let front = Front::open();
    let of_keys = config::public_url(front.url()) + &shared + &config::jobs(0, 30);
    let keys = Server::start(Options::config(of_keys));
    front.lead_to(keys.base());
    let admin = keys.admin();
    let service = admin.new_project("service", "member");
    let password = store.path().join("password");
    std::fs::write(&password, PASSWORD).expect("the password");
    let login = ("service-member", "service", password.as_path());
    let keystone = format!("{}/identity", front.url());
    let of_server = shared + &config::kms(&keystone, "caller", login);
    let server = Server::start(at_the_kms(of_server));
    let there = [
        admin.new_project("one", "member"),
        admin.new_project("two", "member"),
    ];
    let [one, two] = [0, 1].map(|caller: usize| there[caller].at(server.base()));

    let key = there[0].create_key("key");
    let source = one.image("source", 1, LENGTH);
    let before = one.state();
    let refused = |by: &Client, image: &str, key: Option<&str>, code: &str| {
        let body = json!({"name": "replica", "cmk_id": key});
        by.copy(image, body).refused(400, code);
    };
    refused(&one, &source, Some(&key), "IMG.0099");
    assert_eq!(one.state(), before, "the service was not granted it");
    let granted = grant(&there[0], &key, &service);
    let image = one.replicate_with(&source, under(&key));
    assert_eq!(one.download(&image), wanted());
    let tokens = |call: &str| {
        let asked = front.asked(call).into_iter();
        asked.map(|asked| asked.token).collect::<Vec<_>>()
    };
    let described = tokens("describe-key");
    assert!(described.iter().any(|token| token == one.token()));
    let used = [tokens("encrypt-datakey"), tokens("decrypt-datakey")].concat();
    assert!(!used.is_empty());
    assert!(
        used.iter().all(|token| token != one.token()),
        "the service's"
    );

    // Nobody but the service has a part in the key: it can be shared with nobody.
    let share = || {
        let path = format!("/v2/images/{image}/members");
        one.post(&path, json!({"member": two.project()}))
    };
    one.set(&image, "visibility", "shared");
    let refused_to_share = share().expect(400).json();
    assert_eq!(
        refused_to_share["message"],
        "The encrypted image cannot be shared."
    );
    let listed = tokens("list-grants");
    assert_eq!(listed, [one.token()], "the caller's own");

    // The other caller has no part in the key, although the service has.
    let theirs = two.image("theirs", 1, LENGTH);
    refused(&two, &theirs, Some(&key), "IMG.0099");
    let to_two = grant(&there[0], &key, &there[1]);
    let replica = two.replicate_with(&theirs, under(&key));
    assert_eq!(two.download(&replica), wanted());
    share().expect(200);
    there[0].kms("revoke-grant", to_two).expect(200);
    let file = |by: &Client, image: &str| by.get(&format!("/v2/images/{image}/file")).status;
    refused(&two, &theirs, Some(&key), "IMG.0099");
    refused(&two, &replica, None, "IMG.0103");
    assert_eq!(file(&two, &replica), 403);
    // And the service's part can be taken away from the key's own project.
    there[0].kms("revoke-grant", granted).expect(200);
    refused(&one, &source, Some(&key), "IMG.0099");
}
