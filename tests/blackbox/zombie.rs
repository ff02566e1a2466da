//! A worker that stands still for longer than anybody waits, with all engines and the settings as they are shipped. With leases of
//! seconds, [`crate::s3_nodes`] and [`crate::two_servers`] show the same of each part.

use std::thread;
use std::time::{Duration, Instant};

use calotype_tests::{Engines, Options, Server, config, until};

use crate::reseal::{MIB, SEGMENT, segments, under, upload};

const STANDS_STILL: Duration = Duration::from_mins(10);
const SEGMENTS: u64 = 16;

#[test]
fn a_worker_that_stood_still_for_ten_minutes_commits_nothing() {
    let pace = config::reseal_pace(1 << 40, 64 * MIB, 4);
    let text = pace + &config::deletion_grace(0);
    let mut server = Server::start(Options::config(text).on(Engines::default()));
    let client = server.user();
    let source = upload(&client, 1, SEGMENTS);
    let key = client.create_key("key");
    server.workers()[1].kill9();
    let job = client.begin_copy(&source, under(&key));
    until("the job to move", || {
        let done = client.progress(&job)["bytes_done"].as_u64();
        (done >= Some(4 * SEGMENT)).then_some(())
    });
    server.workers()[0].pause();
    let paused = Instant::now();
    server.workers()[1].restart();
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    let shown = client.show(&ended.image());
    client.download_same(&ended.image(), segments(1, SEGMENTS));

    thread::sleep(STANDS_STILL.saturating_sub(paused.elapsed()));
    server.workers()[0].go_on();
    until("the worker to learn that its job is another's", || {
        let log = server.workers()[0].log();
        log.contains("job lost to another attempt").then_some(())
    });
    // It works on, and what it does from now on is its own.
    server.workers()[1].kill9();
    let next = client.job(&client.begin_copy(&source, under(&key)));
    assert_eq!(next.status(), "SUCCESS", "{}", next.document);
    for image in [ended.image(), next.image()] {
        client.download_same(&image, segments(1, SEGMENTS));
    }
    assert_eq!(client.show(&ended.image()), shown);
    let again = client.job(&job);
    assert_eq!(again.document, ended.document);
    server.verify();
}
