//! Reseals that are ended at any instant, by kills and in order: what was noted is not done again, and the bytes are the
//! source's.
//!
//! `CALOTYPE_CRASHES` sets how many kills there are, `CALOTYPE_SEED` which; the seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calotype_tests::content::next;
use calotype_tests::{Client, Content, Options, Server, config, until};

use crate::crash::number;
use crate::reseal::{DATA, MIB, SEGMENT, UNBOUNDED, segments, under, upload};

#[test]
fn a_killed_reseal_does_nothing_again_that_was_noted_and_its_bytes_are_the_sources() {
    const SEGMENTS: u64 = 24;
    let kills = number("CALOTYPE_CRASHES").unwrap_or(200);
    let mut seed = number("CALOTYPE_SEED").unwrap_or(42);
    println!("CALOTYPE_SEED={seed} CALOTYPE_CRASHES={kills}");
    let text = [
        config::reseal_pace(UNBOUNDED, 512 * MIB, 4),
        config::log("info,calotype_blob=debug"),
        config::deletion_grace(0),
    ];
    let mut server = Server::start(Options::config(text.concat()));
    let mut client = server.user();
    let keys = ["even", "odd"].map(|alias| client.create_key(alias));
    let mut image = upload(&client, 1, SEGMENTS);
    let mut made = 0;
    let mut job = client.begin_copy(&image, under(&keys[0]));
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 900));
        server.restart();
        client = client.at(server.base());
        let shown = client.show_job(&job).expect(200).json();
        match shown["status"].as_str() {
            Some("INIT" | "RUNNING") => {}
            Some("SUCCESS") => {
                let replica = shown["entities"]["image_id"].as_str().expect("an id");
                each_segment_is_the_sources(&client, replica, SEGMENTS);
                client.delete(&format!("/v2/images/{image}")).expect(204);
                replica.clone_into(&mut image);
                made += 1;
                job = client.begin_copy(&image, under(&keys[made % 2]));
            }
            _ => panic!("{shown}"),
        }
    }
    let last = client.job(&job);
    assert_eq!(last.status(), "SUCCESS", "{}", last.document);
    println!("{} replicas, {kills} kills", made + 1);
    client.download_same(&last.image(), segments(1, SEGMENTS));
    assert_eq!(client.list().len(), 2, "each job made one image");
    let attempts = attempts(&server.log());
    assert!(
        attempts.iter().any(|attempt| !attempt.found.is_empty()),
        "some went on"
    );
    nothing_noted_is_done_again(&attempts);
    server.verify_stopped();
}

#[test]
fn a_server_that_is_asked_to_stop_hands_a_running_reseal_back_and_its_next_start_goes_on() {
    const SEGMENTS: u64 = 16;
    let text = [
        config::reseal_pace(UNBOUNDED, 128 * MIB, 4),
        config::log("info,calotype_blob=debug"),
    ];
    let mut server = Server::start(Options::config(text.concat()));
    let client = server.user();
    let key = client.create_key("key");
    let source = upload(&client, 1, SEGMENTS);
    let job = client.begin_copy(&source, under(&key));
    until("the job to move", || {
        (client.progress(&job)["bytes_done"].as_u64() >= Some(4 * SEGMENT)).then_some(())
    });
    assert!(server.stop().success());
    let log = server.log();
    assert!(log.contains("job handed back"), "{log}");
    server.restart();
    let client = client.at(server.base());
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    assert_eq!(client.progress(&job)["attempt"], 2);
    let attempts = attempts(&server.log());
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert!(!attempts[1].found.is_empty(), "{attempts:?}");
    nothing_noted_is_done_again(&attempts);
    client.download_same(&ended.image(), segments(1, SEGMENTS));
    server.verify_stopped();
}

/// Of each blob's attempts, every one finds what those before it noted, and does none of that again.
fn nothing_noted_is_done_again(attempts: &[Attempt]) {
    let mut noted: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for attempt in attempts {
        let noted = noted.entry(&attempt.blob).or_default();
        assert!(noted.is_subset(&attempt.found), "{noted:?} {attempt:?}");
        noted.extend(&attempt.found);
        let again: Vec<_> = attempt.done.iter().filter(|i| noted.contains(i)).collect();
        assert!(again.is_empty(), "{again:?} {attempt:?}");
        noted.extend(&attempt.noted);
    }
}

/// What the log tells of one attempt: segments by their indices.
#[derive(Debug)]
pub(crate) struct Attempt {
    blob: String,
    /// What it found noted by those before it.
    pub(crate) found: BTreeSet<u64>,
    /// What it did.
    done: BTreeSet<u64>,
    /// What it noted of that.
    noted: BTreeSet<u64>,
}

pub(crate) fn attempts(log: &str) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for line in log.lines() {
        let field = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}="))?;
            rest.split(' ').next().map(str::to_owned)
        };
        let indices = |name: &str| -> BTreeSet<u64> {
            let text = field(name).unwrap_or_default();
            let indices = text.split(',').filter(|index| !index.is_empty());
            indices
                .map(|index| index.parse().expect("an index"))
                .collect()
        };
        let Some(blob) = field("blob.id") else {
            continue;
        };
        let latest = attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.blob == blob);
        if line.contains("segments found noted") {
            attempts.push(Attempt {
                blob,
                found: indices("segments.found"),
                done: BTreeSet::new(),
                noted: BTreeSet::new(),
            });
        } else if line.contains("segment resealed") {
            let latest = latest.expect("an attempt before its segments");
            for index in indices("segment.index") {
                assert!(latest.done.insert(index), "{index} twice: {latest:?}");
            }
        } else if line.contains("segments noted") {
            let latest = latest.expect("an attempt before its notes");
            latest.noted.extend(indices("segments.noted"));
        }
    }
    attempts
}

fn each_segment_is_the_sources(client: &Client, image: &str, count: u64) {
    for index in 0..count {
        let (from, to) = (index * SEGMENT, index * SEGMENT + DATA + 9);
        let part = client
            .range(image, &format!("bytes={from}-{to}"))
            .expect(206);
        let mut wanted = Content::bytes(1 + index, DATA);
        wanted.extend([0; 10]);
        assert!(part.bytes == wanted, "segment {index} of {image}");
    }
}
