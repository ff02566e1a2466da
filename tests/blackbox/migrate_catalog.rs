//! `calotype migrate-catalog`: a service moves from SQLite to PostgreSQL, whatever the move is killed by.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use calotype_tests::server::binary;
use calotype_tests::{Content, Digests, Options, Server, config, database};
use serde_json::Value;

/// What a service on the data directory is configured with once its catalog is at this URL.
fn moved(url: &str, data: &Path) -> String {
    config::shared(url, data)
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

/// How many rows of a table have arrived.
fn arrived(url: &str, table: &str) -> u64 {
    let sql = format!("select copied from catalog_copies where name = '{table}'");
    database::sql(url, &sql).trim().parse().expect("a number")
}

/// Has the database made the schema, and nothing in it: what is moved is a catalog that no service has made.
fn make_schema(file: &Path) {
    let nothing = tempfile::tempdir().expect("a directory");
    std::fs::write(nothing.path().join("catalog.db"), "").expect("a file");
    let refused = migrate(nothing.path(), file)
        .output()
        .expect("calotype runs");
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("No service has ever run"), "{told}");
}

/// Kills a move when it comes to a row, and `meanwhile` has been done there.
fn kill_at(gate: &database::Gate, row: &str, mut migrate: Command, meanwhile: impl FnOnce()) {
    gate.close(row);
    let migrate = migrate.stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = migrate.spawn().expect("calotype runs");
    gate.wait_until_held(|| {
        let ended = process.try_wait().expect("the process's state");
        assert!(ended.is_none(), "it has not come by");
    });
    meanwhile();
    process.kill().expect("a process that lives");
    process.wait().expect("the process's end");
    gate.wait_until_left();
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
    make_schema(&file);
    let gate = database::Gate::on(&url, "catalog_copies", "new.name || ' ' || new.copied");
    for (table, row) in [("images", 1), ("images", 20), ("jobs", 30)] {
        kill_at(
            &gate,
            &format!("{table} {row}"),
            migrate(&data, &file),
            || (),
        );
        // The rows before it are there, and it is not.
        if row > 1 {
            assert_eq!(arrived(&url, table), row - 1);
        }
        // Nobody serves half a catalog.
        let half = Server::try_start(Options::config(moved(&url, &data)));
        let Err(refusal) = half else {
            panic!("a server has started on half a catalog");
        };
        assert!(refusal.contains("has not wholly arrived"), "{refusal}");
    }
    gate.open();
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
fn a_service_moves_to_postgresql_while_it_serves() {
    let url = database::fresh("migrate_serving");
    let mut server = Server::with_defaults();
    let user = server.user();
    let source = user.image("source", 1, 200_000);
    for number in 0..20 {
        user.replicate(&source, &format!("replica-{number}"));
    }
    let data = server.data();
    let file = data.join("postgres.toml");
    std::fs::write(&file, moved(&url, &data)).expect("the configuration");
    let follow = || {
        let mut command = migrate(&data, &file);
        command.arg("--while-serving");
        command
    };
    // What comes and goes meanwhile.
    let work = |number: u64| {
        let come = user.image("comes", number, 1000 + number);
        let gone = user.replicate(&source, "goes");
        user.delete(&format!("/v2/images/{gone}")).expect(204);
        (come, number)
    };
    let mut made = Vec::new();
    make_schema(&file);
    let gate = database::Gate::on(&url, "catalog_copies", "new.name || ' ' || new.copied");
    for row in [2, 15] {
        let meanwhile = || made.push(work(row));
        kill_at(&gate, &format!("images {row}"), follow(), meanwhile);
    }
    // The notes outlive the service too.
    server.kill9();
    server.restart();
    let user = user.at(server.base());
    gate.open();
    let mut process = follow()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("calotype runs");
    let mut notes = BufReader::new(process.stderr.take().expect("its notes")).lines();
    let mut told = Vec::new();
    while !told
        .last()
        .is_some_and(|line: &String| line.contains("Stop the service"))
    {
        told.push(notes.next().expect("a note").expect("a line"));
    }
    assert!(process.try_wait().expect("its state").is_none());
    let second = follow().output().expect("calotype runs");
    assert_eq!(second.status.code(), Some(1));
    let refused = String::from_utf8_lossy(&second.stderr);
    assert!(refused.contains("being moved by another"), "{refused}");
    let stopped = told.len();
    let come = user.image("last", 9, 5000);
    user.delete(&format!("/v2/images/{}", made[0].0))
        .expect(204);
    let before = user.state();
    assert!(server.stop().success());
    told.extend(notes.map(|line| line.expect("a line")));
    let output = process.wait_with_output().expect("its end");
    assert!(output.status.success(), "{told:#?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tables = report["tables"].as_array().expect("tables");
    let images = tables.iter().find(|table| table["table"] == "images");
    assert_eq!(images.expect("the images")["rows"], before.0.len());
    let copies = |line: &String| line.contains("copied") && !line.contains("Stop the service");
    assert!(!told[stopped..].iter().any(copies), "{told:#?}");

    server
        .try_restart(Options::config(moved(&url, &data)))
        .expect("the service on PostgreSQL");
    let user = user.at(server.base());
    assert_eq!(user.state(), before);
    assert_eq!(user.download(&come), Digests::of(Content::new(9, 5000)));
    let (image, number) = &made[1];
    let wanted = Digests::of(Content::new(*number, 1000 + number));
    assert_eq!(user.download(image), wanted);
    server.verify();
}

#[test]
fn a_move_that_was_begun_while_a_service_runs_can_be_given_up() {
    let url = database::fresh("migrate_given_up");
    let server = Server::with_defaults();
    let user = server.user();
    user.image("source", 1, 1000);
    let data = server.data();
    let file = data.join("postgres.toml");
    std::fs::write(&file, moved(&url, &data)).expect("the configuration");
    let mut process = migrate(&data, &file)
        .arg("--while-serving")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("calotype runs");
    let notes = BufReader::new(process.stderr.take().expect("its notes")).lines();
    let mut notes = notes.map(|line| line.expect("a line"));
    assert!(notes.any(|line| line.contains("Stop the service")));
    process.kill().expect("a process that lives");
    process.wait().expect("the process's end");
    let given_up = migrate(&data, &file).arg("--give-up").output();
    let given_up = given_up.expect("calotype runs");
    assert!(given_up.status.success());
    let told = String::from_utf8_lossy(&given_up.stderr);
    assert!(told.contains("stays where it is"), "{told}");
    user.image("after", 2, 1000);
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
