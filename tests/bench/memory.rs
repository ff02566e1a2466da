//! Memory and time that the server itself takes.

use std::time::{Duration, Instant};

use calotype_tests::{Content, Server};

use crate::machine::process_bytes;
use crate::report::{Report, time_text};
use crate::wire::Wire;

const MIB: u64 = 1 << 20;

/// By then the threads that had something to do have ended.
const IDLE: Duration = Duration::from_secs(15);

pub(crate) fn measure(report: &mut Report) {
    let begin = Instant::now();
    let mut server = Server::with_defaults();
    report.alone("start to ready, first start", time_text(begin.elapsed()));
    let begin = Instant::now();
    server.restart();
    report.alone("start to ready, after a kill", time_text(begin.elapsed()));
    let client = server.user();
    report.alone(
        "resident memory, right after a login",
        mebibytes(server.pid(), "VmRSS"),
    );
    std::thread::sleep(IDLE);
    report.alone(
        "resident memory, idle for 15 s",
        mebibytes(server.pid(), "VmRSS"),
    );

    let image = client.create("measured");
    let part = Content::bytes(1, MIB);
    let parts = std::iter::repeat_n(part.as_slice(), 4096);
    let path = format!("/v2/images/{image}/file");
    Wire::open(&client).put_bytes(&path, 4096 * MIB, parts);
    report.alone(
        "resident memory, highest while 4 GiB are uploaded",
        mebibytes(server.pid(), "VmHWM"),
    );
}

fn mebibytes(pid: u32, field: &str) -> String {
    format!("{:.0} MiB", process_bytes(pid, field) as f64 / MIB as f64)
}
