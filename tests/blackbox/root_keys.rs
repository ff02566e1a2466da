//! The root keys and the store's owner: what a start needs, what it refuses, and what changes while the service runs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use calotype_tests::{Client, Content, Digests, Options, Server, config, program, server, until};
use serde_json::Value;

/// A data directory of the version before there were master keys: its catalog as SQL, its one blob in hexadecimal.
const BEFORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/before-master-keys");
const BLOB: &str = "blobs/blobs/2e/2ed45728-8d5b-4fd2-bede-15a44cc038de";
const OLD: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const NEW: &str = "b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1";

#[test]
fn data_of_the_version_before_master_keys_is_taken_over_as_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    lay_out_before(place.path());
    let mut server = Server::start(Options {
        data: Some(place.path().to_owned()),
        ..Options::default()
    });
    let client = server.user();
    let images = client.list();
    assert_eq!(images.len(), 2, "{images:?}");
    let content = "made before there were master keys\n".repeat(200);
    for image in &images {
        let id = image["id"].as_str().expect("an id");
        let bytes = client.get(&format!("/v2/images/{id}/file")).expect(200);
        assert_eq!(bytes.text(), content);
    }
    let source = images[0]["id"].as_str().expect("an id");
    client.replicate(source, "after");
    let new = client.image("new", 1, 100_000);
    server.restart();
    let client = server.user();
    assert_eq!(client.list().len(), 4);
    assert_eq!(client.download(&new), Digests::of(Content::new(1, 100_000)));
    // And after its root key was replaced.
    let admin = server.admin();
    admin
        .post("/admin/v1/root-key/rotate", Value::Null)
        .expect(200);
    retire(&admin);
    server.restart();
    assert_eq!(server.user().list().len(), 4);
    server.verify_stopped();
}

/// Makes the data directory that the files of [`BEFORE`] describe.
fn lay_out_before(data: &Path) {
    let before = Path::new(BEFORE);
    let text = |name: &str| std::fs::read_to_string(before.join(name)).expect("a fixture");
    let private = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).expect("written");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).expect("its own");
    };
    for name in ["root.key", "clouds.yaml"] {
        private(&data.join(name), text(name).as_bytes());
    }
    let blob = data.join(BLOB);
    std::fs::create_dir_all(&blob).expect("a directory");
    for name in ["body", "manifest"] {
        let digits: String = text(&format!("{name}.hex")).split_whitespace().collect();
        private(&blob.join(name), &hex::decode(digits).expect("hexadecimal"));
    }
    let script = "import sqlite3, sys; \
                  sqlite3.connect(sys.argv[2]).executescript(open(sys.argv[1]).read())";
    let (sql, catalog) = (before.join("catalog.sql"), data.join("catalog.db"));
    let arguments = [
        OsStr::new("-c"),
        OsStr::new(script),
        sql.as_os_str(),
        catalog.as_os_str(),
    ];
    let python = program::python();
    program::run(python.to_str().expect("a text"), &arguments);
}

/// Waits until everything is under the current root key, and retires the others.
fn retire(admin: &Client) {
    until("everything to be rewrapped", || {
        let answer = admin.post("/admin/v1/root-key/retire", Value::Null);
        (answer.status == 200).then_some(())
    });
}

fn refusal(server: &mut Server, options: Options) -> String {
    server.try_restart(options).expect_err("a refusal")
}

#[test]
fn a_start_with_another_root_key_or_without_one_is_refused_and_says_why() {
    let mut server = Server::with_defaults();
    let image = server.user().image("kept", 1, 100_000);
    let path = server.data().join("root.key");
    let right = std::fs::read_to_string(&path).expect("the root key");
    std::fs::remove_file(&path).expect("removed");
    let reason = refusal(&mut server, Options::default());
    assert!(reason.contains("root.key is not there"), "{reason}");
    assert!(!path.exists(), "none is made in its place");

    let wrong = format!("calotype-service-key-1:{NEW}\n");
    program::run(
        "install",
        &["-m", "600", "/dev/null", path.to_str().expect("a text")],
    );
    std::fs::write(&path, &wrong).expect("written");
    let reason = refusal(&mut server, Options::default());
    assert!(
        reason.contains("The master keys are wrapped under the root key"),
        "{reason}"
    );
    assert!(!reason.contains(NEW) && !server.log().contains(NEW));

    std::fs::write(&path, &right).expect("written");
    server.restart();
    let wanted = Digests::of(Content::new(1, 100_000));
    assert_eq!(server.user().download(&image), wanted);
    server.verify();
}

#[test]
fn root_keys_come_from_the_environment_or_a_credential_where_the_operator_wants() {
    let environment = |text: &str| Options {
        config: Some(config::root_key_from("environment")),
        environment: vec![("CALOTYPE_ROOT_KEY".to_owned(), text.to_owned())],
        ..Options::default()
    };
    let mut server = Server::start(environment(OLD));
    assert!(!server.data().join("root.key").exists());
    let image = server.user().image("kept", 1, 100_000);
    let missing = Options {
        environment: Vec::new(),
        ..environment(OLD)
    };
    let reason = refusal(&mut server, missing);
    assert!(reason.contains("CALOTYPE_ROOT_KEY"), "{reason}");
    let reason = refusal(&mut server, environment(NEW));
    assert!(
        reason.contains("CALOTYPE_ROOT_KEY has another one"),
        "{reason}"
    );

    // The operator's own rotation: the new one in front, and later without the old one.
    let both = server.try_restart(environment(&format!("{NEW} {OLD}")));
    both.expect("ready");
    let admin = server.admin();
    admin
        .post("/admin/v1/root-key/rotate", Value::Null)
        .expect(409);
    retire(&admin);

    let credentials = tempfile::tempdir().expect("a directory");
    std::fs::write(credentials.path().join("calotype-root-key"), NEW).expect("written");
    let directory = credentials.path().to_str().expect("a text").to_owned();
    let credential = Options {
        config: Some(config::root_key_from("credential")),
        environment: vec![("CREDENTIALS_DIRECTORY".to_owned(), directory)],
        ..Options::default()
    };
    server.try_restart(credential).expect("ready");
    let wanted = Digests::of(Content::new(1, 100_000));
    assert_eq!(server.user().download(&image), wanted);
    for secret in [OLD, NEW] {
        assert!(!server.log().contains(secret));
    }
}

#[test]
fn a_store_is_refused_to_every_catalog_but_its_own() {
    let mut server = Server::with_defaults();
    let image = server.user().image("kept", 1, 100_000);
    server.kill9();
    let data = server.data();
    let kept = data.with_file_name("kept");
    move_catalog(&data, &kept);

    // The database is lost: a new one knows no blob, and would have them all deleted.
    let reason = refusal(&mut server, Options::default());
    assert!(
        reason.contains("the store main belongs to the catalog"),
        "{reason}"
    );
    assert!(reason.contains("adopt-store"), "{reason}");
    std::fs::remove_file(data.join("catalog.db")).expect("removed");
    move_catalog(&kept, &data);
    server.restart();
    let wanted = Digests::of(Content::new(1, 100_000));
    assert_eq!(server.user().download(&image), wanted);

    // A volume that is not mounted.
    server.kill9();
    std::fs::rename(data.join("blobs"), kept.join("blobs")).expect("moved");
    let reason = refusal(&mut server, Options::default());
    assert!(reason.contains("is its volume mounted?"), "{reason}");
    std::fs::remove_dir_all(data.join("blobs")).expect("removed");
    std::fs::rename(kept.join("blobs"), data.join("blobs")).expect("moved");
    server.restart();
    assert_eq!(server.user().download(&image), wanted);
}

#[test]
fn an_operator_gives_a_store_to_a_new_catalog_which_takes_its_keys_along() {
    let mut server = Server::with_defaults();
    server.user().image("lost", 1, 100_000);
    server.kill9();
    let data = server.data();
    let kept = data.with_file_name("kept");
    move_catalog(&data, &kept);
    std::fs::remove_file(data.join("clouds.yaml")).expect("removed");
    let before = std::fs::read(data.join("blobs/labels/keyring")).expect("the copy");
    let output = adopt(&data);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    server.restart();
    let after = std::fs::read(data.join("blobs/labels/keyring")).expect("the copy");
    let keys = |bytes: &[u8]| -> Vec<(Value, Value)> {
        let copy: Value = serde_json::from_slice(bytes).expect("JSON");
        let keys = copy["keys"].as_array().expect("keys").iter();
        keys.map(|key| (key["key"].clone(), key["root"].clone()))
            .collect()
    };
    assert_eq!(keys(&before), keys(&after));
    let client = server.user();
    let image = client.image("new", 2, 100_000);
    let wanted = Digests::of(Content::new(2, 100_000));
    assert_eq!(client.download(&image), wanted);
    assert!(!adopt(&data).status.success(), "not while the service runs");
}

fn adopt(data: &Path) -> Output {
    Command::new(server::binary())
        .args(["admin", "adopt-store", "--data-dir"])
        .arg(data)
        .output()
        .expect("the calotype binary runs")
}

fn move_catalog(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let old = from.join(name);
        if old.exists() {
            std::fs::rename(old, to.join(name)).expect("moved");
        }
    }
}
