//! `calotype migrate-catalog`: a service moves from SQLite to PostgreSQL, whatever the move is killed by.

use std::path::Path;
use std::process::{Command, Stdio};

use calotype_tests::server::binary;
use calotype_tests::{Content, Digests, Options, Server, config, database, until};
use serde_json::Value;

/// What a service on the data directory is configured with once its catalog is at this URL.
fn moved(url: &str, data: &Path) -> String {
    config::shared(url, &data.join("blobs"), &data.join("root.key"))
}

fn migrate(data: &Path, file: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["migrate-catalog", "--output", "json", "--rows-at-once", "1"])
        .arg("--data-dir")
        .arg(data)
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null());
    command
}

/// How many rows have arrived, or none where there is no schema yet.
fn arrived(url: &str) -> u64 {
    let schema = database::sql(
        url,
        "select count(*) from pg_tables where tablename = 'catalog_copies'",
    );
    if schema.trim() == "0" {
        return 0;
    }
    let sum = database::sql(url, "select coalesce(sum(copied), 0) from catalog_copies");
    sum.trim().parse().expect("a number")
}

#[test]
fn a_service_moves_to_postgresql_though_the_move_is_killed_again_and_again() {
    let url = database::fresh("migrate_catalog");
    let mut server = Server::with_defaults();
    let user = server.user();
    let source = user.image("source", 1, 200_000);
    let other = user.image("other", 2, 70_000);
    for number in 0..40 {
        user.replicate(&source, &format!("replica-{number}"));
    }
    user.delete(&format!("/v2/images/{other}")).expect(204);
    let before = user.state();
    let trail = user.audit("copyImage").len();
    let data = server.data();
    let file = data.join("postgres.toml");
    std::fs::write(&file, moved(&url, &data)).expect("the configuration");

    // A service that runs is not moved away under its clients.
    let refused = migrate(&data, &file).output().expect("calotype runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"));

    server.kill9();
    for kill in 1..=3_u64 {
        let mut process = migrate(&data, &file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("calotype runs");
        let begun = arrived(&url);
        until("some rows to arrive", || {
            let ended = process.try_wait().expect("the process's state");
            assert!(ended.is_none(), "it was not slow enough to be killed");
            (arrived(&url) >= begun + 20 * kill).then_some(())
        });
        process.kill().expect("a process that lives");
        process.wait().expect("the process's end");
        // Nobody serves half a catalog.
        let half = Server::try_start(Options::config(moved(&url, &data)));
        let Err(refusal) = half else {
            panic!("a server has started on half a catalog");
        };
        assert!(refusal.contains("has not wholly arrived"), "{refusal}");
    }
    let output = migrate(&data, &file).output().expect("calotype runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("images: 41 of 41 rows compared"), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tables = report["tables"].as_array().expect("tables");
    let images = tables.iter().find(|table| table["table"] == "images");
    let images = images.expect("the images");
    assert_eq!(images["rows"], 41);
    assert_eq!(images["sha256"].as_str().expect("a digest").len(), 64);

    // On the old catalog nothing starts any more: it would delete what it does not know.
    let options = Options {
        data: Some(data.clone()),
        ..Options::default()
    };
    let Err(refusal) = server.try_restart(options) else {
        panic!("a server has started on a catalog that has left");
    };
    assert!(refusal.contains("has moved to PostgreSQL"), "{refusal}");

    server
        .try_restart(Options::config(moved(&url, &data)))
        .expect("the service on PostgreSQL");
    // The same users, tokens, images and jobs.
    let user = user.at(server.base());
    assert_eq!(user.state(), before);
    assert_eq!(user.audit("copyImage").len(), trail);
    assert_eq!(
        user.download(&source),
        Digests::of(Content::new(1, 200_000))
    );
    let replica = user.replicate(&source, "after");
    assert_eq!(user.show(&replica)["status"], "active");
    server.verify();
}

#[test]
fn a_catalog_is_not_moved_without_being_told_where_to() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("sqlite.toml");
    std::fs::write(&file, "").expect("the configuration");
    let output = migrate(home.path(), &file).output().expect("calotype runs");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("must be the PostgreSQL"), "{told}");

    let url = database::fresh("migrate_nothing");
    std::fs::write(&file, config::postgres(&url)).expect("the configuration");
    let output = migrate(home.path(), &file).output().expect("calotype runs");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("There is no catalog"), "{told}");
}
