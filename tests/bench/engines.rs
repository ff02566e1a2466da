//! Bytes in a bucket of a real Ceph: through Calotype, against boto3's own transfer to the same gateway, in the same run.

use std::fs::File;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use calotype_tests::{Ceph, Client, Content, Options, Server, config, program};
use serde_json::json;

use crate::report::Report;
use crate::wire::Wire;

const LENGTH: u64 = 1 << 30;
const ROUNDS: usize = 3;

/// What Calotype does too: bytes of a part, and parts at once.
const PART: u64 = 8 << 20;
const AT_ONCE: usize = 6;

pub(crate) fn measure(report: &mut Report) {
    let ceph = Ceph::connect();
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("content");
    let written =
        File::create(&file).and_then(|mut file| io::copy(&mut Content::new(1, LENGTH), &mut file));
    written.expect("room");
    let (their_put, their_get) = boto3(&ceph, &file.to_string_lossy());

    let (bucket, key) = (ceph.bucket(), ceph.secret_file());
    let store = config::s3_store(ceph.url(), &bucket, (ceph.access_key(), &key));
    let server = Server::start(Options::config(store + &config::deletion_grace(0)));
    let client = server.user();
    let content = Content::bytes(1, LENGTH);
    let mut image = String::new();
    let put = best(|| {
        image = client.create("measured");
        let path = format!("/v2/images/{image}/file");
        let begin = Instant::now();
        Wire::open(&client).put_bytes(&path, LENGTH, content.chunks(1 << 20));
        begin.elapsed()
    });
    drop(content);
    let get = best(|| {
        let begin = Instant::now();
        download(&client, &image);
        begin.elapsed()
    });
    let key = client.create_key("measured");
    let reseal = best(|| {
        let begin = Instant::now();
        let replica = client.replicate_with(&image, json!({"name": "replica", "cmk_id": key}));
        let time = begin.elapsed();
        client.delete(&format!("/v2/images/{replica}")).expect(204);
        time
    });
    let what = "1 GiB into a bucket of Ceph";
    report.speeds(what, put, "boto3, as many parts at once", their_put);
    let what = "1 GiB out of a bucket of Ceph";
    report.speeds(what, get, "boto3, as many parts at once", their_get);
    report.speeds(
        "replica under a key, 1 GiB in a bucket of Ceph",
        reseal,
        "the slower of its put and get",
        put.min(get),
    );
}

/// The best speeds of boto3: put, and get.
fn boto3(ceph: &Ceph, file: &str) -> (f64, f64) {
    let python = std::env::var_os("CALOTYPE_BENCH_PYTHON").expect("`cargo xtask bench` sets it");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/s3_transfer.py");
    let output = Command::new(python)
        .args([script, ceph.url(), &ceph.bucket(), file])
        .args([PART.to_string(), AT_ONCE.to_string(), ROUNDS.to_string()])
        .env("AWS_ACCESS_KEY_ID", ceph.access_key())
        .env("AWS_SECRET_ACCESS_KEY", ceph.secret_key())
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{failed}");
    let speeds = said.trim().split_once(' ').and_then(|(put, get)| {
        let speed = |text: &str| text.parse::<f64>().ok();
        Some((speed(put)?, speed(get)?))
    });
    speeds.unwrap_or_else(|| panic!("no two speeds: {said}{failed}"))
}

fn download(client: &Client, image: &str) {
    let url = format!("{}/v2/images/{image}/file", client.base());
    let token = format!("X-Auth-Token: {}", client.token());
    let how = ["-fsS", "-o", "/dev/null", "-w", "%{size_download}", "-H"];
    let said = program::run("curl", &[&how[..], &[&token, &url]].concat());
    assert_eq!(said.trim().parse(), Ok(LENGTH), "all of it came");
}

/// Bytes a second of the best round.
fn best(measure: impl FnMut() -> Duration) -> f64 {
    let rounds = std::iter::repeat_with(measure).take(ROUNDS);
    let best = rounds.min().unwrap_or(Duration::MAX);
    LENGTH as f64 / best.as_secs_f64()
}
