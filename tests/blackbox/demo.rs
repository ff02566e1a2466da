//! `calotype demo`: the whole way of an image in one command, and what it leaves behind: nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use calotype_tests::server::binary;
use calotype_tests::{program, until};
use serde_json::Value;

const STEPS: [&str; 10] = [
    "start the service",
    "make a disk image",
    "cp and fsync, for comparison",
    "upload",
    "replicate",
    "download the replica",
    "compare every byte",
    "replicate under a key",
    "download the encrypted replica",
    "compare every byte of it",
];

fn demo(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .args(["demo", "--size", "64MiB", "--dir"])
        .arg(place)
        .env_clear()
        .current_dir(place)
        .stdin(Stdio::null());
    command
}

fn is_empty(place: &Path) -> bool {
    let mut entries = std::fs::read_dir(place).expect("a directory");
    entries.next().is_none()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_step_is_shown_beside_cp_and_nothing_is_left() {
    let place = tempfile::tempdir().expect("a directory");
    let output = demo(place.path(), &["--output", "json"]).output();
    let output = output.expect("the calotype binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let steps: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let steps = steps.as_array().expect("steps");
    let names: Vec<_> = steps.iter().map(|step| &step["step"]).collect();
    assert_eq!(names, STEPS);
    for step in &steps[1..] {
        assert!(step["times_cp"].as_f64() > Some(0.0), "{step}");
    }
    assert!(is_empty(place.path()));

    let output = demo(place.path(), &[]).output().expect("a run");
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(table.starts_with("STEP"), "{table}");
    assert!(STEPS.iter().all(|step| table.contains(step)), "{table}");
}

#[test]
fn a_step_that_fails_is_named_and_nothing_is_left() {
    let place = tempfile::tempdir().expect("a directory");
    // No file may become larger than 32 MiB: the disk image can't be made.
    let mut shell = Command::new("sh");
    let limited = "ulimit -f 32768; trap '' XFSZ; exec \"$0\" demo --size 64MiB --dir .";
    let output = shell
        .args(["-c", limited])
        .arg(binary())
        .current_dir(place.path())
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("error: make a disk image: "),
        "{}",
        said(&output)
    );
    assert!(is_empty(place.path()));
}

#[test]
fn an_interrupted_demo_ends_and_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let mut running = demo(place.path(), &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the calotype binary runs");
    until("the demo to be at work", || {
        (!is_empty(place.path())).then_some(())
    });
    assert_eq!(interrupt(&mut running), Some(130));
    assert!(is_empty(place.path()));
}

#[test]
fn a_kept_demo_answers_until_it_is_interrupted() {
    let place = tempfile::tempdir().expect("a directory");
    let mut running = demo(place.path(), &[])
        .arg("--keep")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the calotype binary runs");
    let notes = BufReader::new(running.stderr.take().expect("its notes"));
    let exported = notes.lines().find_map(|line| {
        let line = line.expect("text");
        let (_, file) = line.split_once("OS_CLIENT_CONFIG_FILE=\"")?;
        file.split_once('"').map(|(file, _)| file.to_owned())
    });
    let listed = Command::new(binary())
        .args(["--output", "json", "image", "list"])
        .env("OS_CLIENT_CONFIG_FILE", exported.expect("how to reach it"))
        .env("OS_CLOUD", "calotype")
        .output()
        .expect("the calotype binary runs");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    assert_eq!(interrupt(&mut running), Some(0));
    assert!(is_empty(place.path()));
}

/// Sends what Ctrl-C sends, and waits for the end.
fn interrupt(running: &mut Child) -> Option<i32> {
    program::run("kill", &["-INT", &running.id().to_string()]);
    running.wait().expect("its end").code()
}
