//! Images from buckets, against an upload of the same bytes; and what the inspection takes of an upload.

use std::path::Path;
use std::time::{Duration, Instant};

use calotype_tests::{Client, Content, Options, Server, config, program};
use serde_json::json;

use crate::example;
use crate::report::Report;
use crate::wire::Wire;

const LENGTH: u64 = 1 << 30;
const ROUNDS: usize = 3;
/// Formats that are inspected: one without tables, one with its tables between its data, and one with them in front.
const FORMATS: [&str; 3] = ["raw", "qcow2", "vmdk"];

pub(crate) fn measure(report: &mut Report) {
    // Bytes that were deleted make room at once: the disk need not hold every round.
    let server = Server::start(Options::config(config::deletion_grace(0)));
    let client = server.user();
    let bucket = server.bucket("images");
    let content = Content::bytes(1, LENGTH);
    std::fs::write(bucket.join("raw"), &content).expect("room");
    drop(content);
    for format in &FORMATS[1..] {
        convert(&bucket.join("raw"), &bucket.join(format), format);
    }
    for format in FORMATS {
        let content = std::fs::read(bucket.join(format)).expect("the object");
        let [mut imported, mut uploaded] = [Duration::MAX; 2];
        // In turns, so that what else the machine and its disk do falls on both.
        for _ in 0..ROUNDS {
            imported = imported.min(import(&client, format));
            uploaded = uploaded.min(upload(&client, format, &content));
        }
        report.times(
            &format!("import of 1 GiB ({format}) from a directory, POST to SUCCESS"),
            imported,
            "upload of the same bytes",
            uploaded,
        );
        report.part(
            &format!("inspection of 1 GiB ({format}), alone on one core"),
            inspection(&bucket.join(format)),
            "upload of the same bytes",
            uploaded,
        );
    }
}

fn convert(raw: &Path, file: &Path, format: &str) {
    let (from, to) = (raw.to_string_lossy(), file.to_string_lossy());
    let convert = ["convert", "-f", "raw", "-O", format, &from, &to];
    program::run("qemu-img", &convert);
}

fn import(client: &Client, format: &str) -> Duration {
    let begin = Instant::now();
    let job = client.begin_import(&format!("images:{format}"), json!({}));
    let job = client.job(&job);
    let taken = begin.elapsed();
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    delete(client, &job.image());
    taken
}

fn upload(client: &Client, format: &str, content: &[u8]) -> Duration {
    let record = json!({"name": "measured", "disk_format": format, "container_format": "bare"});
    let image = client.create_with(record);
    let path = format!("/v2/images/{image}/file");
    let begin = Instant::now();
    Wire::open(client).put_bytes(&path, content.len() as u64, content.chunks(1 << 20));
    let taken = begin.elapsed();
    delete(client, &image);
    taken
}

fn delete(client: &Client, image: &str) {
    client.delete(&format!("/v2/images/{image}")).expect(204);
}

/// How long the inspector takes over a file's bytes, which a program of its own says.
fn inspection(file: &Path) -> Duration {
    example("inspect_speed", &file.to_string_lossy())
}
