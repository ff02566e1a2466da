//! Plain replicas: from the request to SUCCESS, at two sizes that are 8192 apart.

use std::time::{Duration, Instant};

use calotype_tests::{Client, Options, Server, config};
use serde_json::Value;

use crate::report::{Report, quantile};
use crate::wire::Wire;

const ROUNDS: usize = 200;
const MIB: u64 = 1 << 20;

pub(crate) fn measure(report: &mut Report) {
    let server = Server::start(Options::config(config::limits(100_000, 1000)));
    let client = server.user();
    let small = image(&client, 1);
    let large = image(&client, 8 * 1024);
    // In turns, so that what else the machine does falls on both.
    let (mut small, mut large): (Vec<_>, Vec<_>) = {
        let mut wire = Wire::open(&client);
        (0..ROUNDS)
            .map(|_| {
                (
                    time(&client, &mut wire, &small),
                    time(&client, &mut wire, &large),
                )
            })
            .unzip()
    };
    report.times(
        "plain replica of 8 GiB (sparse), POST to SUCCESS, median",
        quantile(&mut large, 0.5),
        "of 1 MiB",
        quantile(&mut small, 0.5),
    );
    report.times(
        "plain replica of 8 GiB (sparse), POST to SUCCESS, p99",
        quantile(&mut large, 0.99),
        "of 1 MiB",
        quantile(&mut small, 0.99),
    );
}

/// An image of this many MiB: zeros, and a number in each of them.
pub(crate) fn image(client: &Client, mebibytes: u64) -> String {
    let id = client.create("measured");
    let mut part = vec![0; 1 << 20];
    part[..8].copy_from_slice(b"calotype");
    let count = usize::try_from(mebibytes).expect("a small number");
    let parts = std::iter::repeat_n(part.as_slice(), count);
    let path = format!("/v2/images/{id}/file");
    Wire::open(client).put_bytes(&path, mebibytes * MIB, parts);
    id
}

/// From the request to SUCCESS.
pub(crate) fn time(client: &Client, wire: &mut Wire, image: &str) -> Duration {
    let begin = Instant::now();
    let copy = format!("/v1/cloudimages/{image}/copy");
    let accepted: Value = parsed(wire.post(&copy, r#"{"name":"replica"}"#, 200));
    let job = accepted["job_id"].as_str().expect("a job_id");
    let path = format!("/v1/{}/jobs/{job}", client.project());
    loop {
        let job: Value = parsed(wire.get(&path));
        match job["status"].as_str() {
            Some("SUCCESS") => return begin.elapsed(),
            Some("INIT" | "RUNNING") => {}
            _ => panic!("{job}"),
        }
    }
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}
