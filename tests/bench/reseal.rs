//! Replicas under another key: against `cp`, against `qemu-img` to LUKS, and what they leave for others.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calotype_tests::{Client, Content, Options, Server, config, program, until};
use serde_json::{Value, json};

use crate::example;
use crate::machine::process_bytes;
use crate::report::{Report, quantile};
use crate::wire::Wire;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const LARGE: u64 = 4 * GIB;
const ROUNDS: usize = 3;
/// A disk that others share takes twice as long in one round as in the next.
const DISK_ROUNDS: usize = 6;
const GETS: usize = 20_000;

pub(crate) fn measure(report: &mut Report) {
    on_disk(report);
    in_memory(report);
    sparse(report);
}

/// Bytes that were deleted make room at once: the disk of the measurement need not hold every round.
fn options() -> Options {
    Options::config(config::deletion_grace(0))
}

/// 4 GiB of random bytes, on the disk that the file lies on too.
fn on_disk(report: &mut Report) {
    let server = Server::start(options());
    let client = server.user();
    let key = client.create_key("measured");
    let home = tempfile::tempdir().expect("a directory");
    let (file, copy) = (home.path().join("content"), home.path().join("copy"));
    let written = File::create(&file)
        .and_then(|mut file| io::copy(&mut Content::new(1, LARGE), &mut file).map(|_| file))
        .and_then(|file| file.sync_all());
    written.expect("room");
    let image = client.image("measured", 1, LARGE);

    let [mut ours, mut cached, mut uncached, mut luks] = [const { Vec::new() }; 4];
    // In turns, so that what else the machine and its disk do falls on all.
    for _ in 0..DISK_ROUNDS {
        ours.push(once(&server, &client, &image, &key));
        cached.push(kept(&copy, || cp(&file, &copy)));
        forget(&file);
        uncached.push(kept(&copy, || cp(&file, &copy)));
        luks.push(kept(&copy, || to_luks(&file, &copy)));
    }
    let what = "replica under a key, 4 GiB of random bytes on disk";
    let ours = speed(LARGE, &ours);
    let cached = speed(LARGE, &cached);
    report.speeds(what, ours, "cp and fsync of a file in memory", cached);
    let uncached = speed(LARGE, &uncached);
    report.speeds(what, ours, "cp and fsync of a file on disk", uncached);
    report.speeds(
        what,
        ours,
        "qemu-img to LUKS, and fsync",
        speed(LARGE, &luks),
    );
}

/// Touches more memory than is written next. In a virtual machine the first touch of a page waits for the host, and one that
/// has been free for two seconds may have gone back to it.
fn touch(directory: &Path) {
    let path = directory.join("touched");
    let filled = File::create(&path)
        .and_then(|mut file| io::copy(&mut io::repeat(0).take(3 * GIB), &mut file));
    filled.expect("room");
    std::fs::remove_file(path).expect("the file");
}

/// The same with the disk out of the way.
fn in_memory(report: &mut Report) {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a file system in memory");
    let server = Server::start(Options {
        data: Some(memory.path().join("data")),
        ..options()
    });
    let client = server.user();
    let key = client.create_key("measured");
    let length = 2 * GIB;
    let image = client.image("measured", 1, length);
    let file = memory.path().join("content");
    let written =
        File::create(&file).and_then(|mut file| io::copy(&mut Content::new(1, length), &mut file));
    written.expect("room");
    let copy = memory.path().join("copy");
    let (mut ours, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..2 * ROUNDS {
        touch(memory.path());
        ours.push(once(&server, &client, &image, &key));
        touch(memory.path());
        copied.push(kept(&copy, || cp(&file, &copy)));
    }
    report.speeds(
        "replica under a key, 2 GiB of random bytes in memory",
        speed(length, &ours),
        "cp",
        speed(length, &copied),
    );
    let gib = (length / GIB).to_string();
    report.speeds(
        "the same by the pipeline alone, whose store is its own memory",
        speed(length, &[example("reseal_speed", &gib)]),
        "cp",
        speed(length, &copied),
    );
}

/// 40 GiB with 1 GiB of data in every fortieth MiB, against that 1 GiB without holes.
fn sparse(report: &mut Report) {
    let server = Server::start(options());
    let client = server.user();
    let key = client.create_key("measured");
    let (zeros, data) = (vec![0; 39 << 20], Content::bytes(1, MIB));
    let put = |parts: &mut dyn Iterator<Item = &[u8]>, length| {
        let image = client.create("measured");
        let path = format!("/v2/images/{image}/file");
        Wire::open(&client).put_bytes(&path, length, parts);
        image
    };
    let dense = put(&mut std::iter::repeat_n(data.as_slice(), 1024), GIB);
    let mut parts = std::iter::repeat_n([data.as_slice(), &zeros], 1024).flatten();
    let holes = put(&mut parts, 40 * GIB);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with.push(once(&server, &client, &holes, &key));
        without.push(once(&server, &client, &dense, &key));
    }
    report.times(
        "replica under a key, 40 GiB with 1 GiB of data",
        best(&with),
        "1 GiB without holes",
        best(&without),
    );
}

/// Five at once: what they take, and what they leave for who asks for a record meanwhile.
pub(crate) fn five_at_once(report: &mut Report) {
    let server = Server::start(options());
    let client = server.user();
    let key = client.create_key("measured");
    let image = client.image("measured", 1, 2 * GIB);
    let path = format!("/v2/images/{image}");
    // With a pause between, as people and scripts make it: who asks without one competes with itself.
    let get = |wire: &mut Wire| {
        std::thread::sleep(Duration::from_micros(200));
        let begin = Instant::now();
        wire.get(&path);
        begin.elapsed()
    };
    let mut wire = Wire::open(&client);
    let mut idle: Vec<_> = (0..GETS).map(|_| get(&mut wire)).collect();
    let jobs: Vec<_> = (0..5).map(|_| begin(&client, &image, &key)).collect();
    let ended = AtomicBool::new(false);
    let mut busy = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut times = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                times.push(get(&mut wire));
            }
            times
        });
        for job in &jobs {
            wait(&client, job);
        }
        ended.store(true, Ordering::Relaxed);
        asker.join().expect("times")
    });
    let most = process_bytes(server.pid(), "VmHWM") / MIB;
    report.alone(
        "resident memory, highest while five replicas are made under a key",
        format!("{most} MiB"),
    );
    for (name, part) in [("median", 0.5), ("p99", 0.99)] {
        report.times(
            &format!("GET /v2/images/{{id}} while five replicas are made under a key, {name}"),
            quantile(&mut busy, part),
            "on an idle server",
            quantile(&mut idle, part),
        );
    }
}

/// The time of one replica from the request to SUCCESS; it is deleted again.
fn once(server: &Server, client: &Client, image: &str, key: &str) -> Duration {
    let stored = server.stored();
    let start = Instant::now();
    let job = begin(client, image, key);
    let replica = wait(client, &job);
    let time = start.elapsed();
    client.delete(&format!("/v2/images/{replica}")).expect(204);
    // So that its room is not given back while something else is measured.
    until("the bytes to be gone", || {
        (server.stored() == stored).then_some(())
    });
    time
}

fn begin(client: &Client, image: &str, key: &str) -> String {
    client.begin_copy(image, json!({"name": "replica", "cmk_id": key}))
}

/// The id of the image that a job made.
fn wait(client: &Client, job: &str) -> String {
    loop {
        let job: Value = client.show_job(job).expect(200).json();
        match job["status"].as_str() {
            Some("SUCCESS") => {
                let image = job["entities"]["image_id"].as_str();
                return image.expect("an id").to_owned();
            }
            Some("INIT" | "RUNNING") => std::thread::sleep(Duration::from_millis(5)),
            _ => panic!("{job}"),
        }
    }
}

/// The time of making a file, until the disk has it; it is removed again.
fn kept(file: &Path, make: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    make();
    let synced = File::open(file).and_then(|file| file.sync_all());
    synced.expect("the disk keeps it");
    let time = begin.elapsed();
    std::fs::remove_file(file).expect("the file");
    time
}

fn cp(from: &Path, to: &Path) {
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    program::run("cp", &["--reflink=never", &from, &to]);
}

/// By default qemu-img takes two seconds for the passphrase alone: that is not what is measured.
fn to_luks(from: &Path, to: &Path) {
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    let arguments = [
        "convert",
        "--object",
        "secret,id=key,data=measured",
        "-f",
        "raw",
        "-O",
        "luks",
        "-o",
        "key-secret=key,iter-time=10",
        "-m",
        "16",
        "-W",
        &from,
        &to,
    ];
    program::run("qemu-img", &arguments);
}

/// Takes a file out of the page cache.
fn forget(file: &Path) {
    let file = File::open(file).expect("the file");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
}

fn best(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

fn speed(bytes: u64, times: &[Duration]) -> f64 {
    bytes as f64 / best(times).as_secs_f64()
}
