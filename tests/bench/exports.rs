//! Images into buckets, against qemu-img by hand.

use std::fs::File;
use std::time::{Duration, Instant};

use calotype_tests::{Content, Options, Server, client, config, program};
use serde_json::json;

use crate::report::Report;

const LENGTH: u64 = 1 << 30;
const ROUNDS: usize = 10;

pub(crate) fn measure(report: &mut Report) {
    let server = Server::start(Options::config(config::deletion_grace(0)));
    let client = server.user();
    let bucket = server.bucket("images");
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("content");
    std::fs::write(&file, Content::bytes(1, LENGTH)).expect("room");
    let image = client.image("measured", 1, LENGTH);
    for format in ["qcow2", "vmdk"] {
        let [mut exported, mut converted] = [Duration::MAX; 2];
        // In turns, so that what else the machine and its disk do falls on both.
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let body = json!({"bucket_url": "images:exported", "file_format": format});
            let accepted = client.post(&format!("/v1/cloudimages/{image}/file"), body);
            let job = client.job(&client::text(&accepted.expect(200).json()["job_id"]));
            exported = exported.min(begin.elapsed());
            assert_eq!(job.status(), "SUCCESS", "{}", job.document);
            std::fs::remove_file(bucket.join("exported")).expect("the object");

            let copy = home.path().join("copy");
            let (from, to) = (file.to_string_lossy(), copy.to_string_lossy());
            let begin = Instant::now();
            let convert = ["convert", "-f", "raw", "-O", format, &from, &to];
            program::run("qemu-img", &convert);
            let synced = File::open(&copy).and_then(|file| file.sync_all());
            synced.expect("the disk keeps it");
            converted = converted.min(begin.elapsed());
            std::fs::remove_file(&copy).expect("the copy");
        }
        report.times(
            &format!("export of 1 GiB of random bytes to {format} in a directory, POST to SUCCESS"),
            exported,
            "qemu-img convert of the same file by hand, and fsync",
            converted,
        );
    }
}
