//! Several processes on one bucket of a real Ceph: what one leaves another goes on with, and one that comes back from the
//! dead takes nothing away. A network to it that fails in every way, and a clock that is not the store's.

use calotype_tests::{Ceph, Client, Content, Digests, Fault, Network, Options, Server, Worker};
use calotype_tests::{config, database, until};
use serde_json::json;

use crate::reseal::{MIB, SEGMENT, segments, under, upload};

const SEGMENTS: u64 = 16;

/// A server that does no jobs, and what workers of the same deployment are configured with.
struct Deployment {
    server: Server,
    client: Client,
    worker: String,
    bucket: String,
    _home: tempfile::TempDir,
}

fn deployment(ceph: &Ceph, name: &str) -> Deployment {
    let (url, bucket) = (database::fresh(name), ceph.bucket());
    let home = tempfile::tempdir().expect("a directory");
    let root_key = home.path().join("root.key");
    let key = (ceph.access_key(), &*ceph.secret_file());
    let common = [
        config::postgres(&url),
        config::s3_store(ceph.url(), &bucket, key),
        format!("[keys]\nroot_key_file = {root_key:?}\n"),
        config::deletion_grace(0),
        config::reseal_pace(1 << 40, 128 * MIB, 4),
    ]
    .concat();
    let server = Server::start(Options::config(format!("{common}\n{}", config::jobs(0, 5))));
    Deployment {
        client: server.user(),
        server,
        worker: format!("{common}\n{}", config::jobs(4, 5)),
        bucket,
        _home: home,
    }
}

impl Deployment {
    /// Begins a reseal, and waits until the worker has noted some of it.
    fn begin(&self, source: &str) -> String {
        let key = self.client.create_key("key");
        let job = self.client.begin_copy(source, under(&key));
        until("the job to move", || {
            let done = self.client.progress(&job)["bytes_done"].as_u64();
            (done >= Some(6 * SEGMENT)).then_some(())
        });
        job
    }

    /// The job ends well, with the bytes of its source, and nothing else is left.
    fn expect_success(&self, ceph: &Ceph, job: &str) {
        let ended = self.client.job(job);
        assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
        self.client
            .download_same(&ended.image(), segments(1, SEGMENTS));
        self.expect_nothing_staged(ceph);
        // Also after everything was looked through.
        self.client
            .download_same(&ended.image(), segments(1, SEGMENTS));
        self.server.verify();
    }

    fn expect_nothing_staged(&self, ceph: &Ceph) {
        until("what was staged to go", || {
            let keys = ceph.keys(&self.bucket);
            let staged = keys.iter().any(|key| key.contains("/staged/"));
            (!staged).then_some(())
        });
    }
}

#[test]
fn a_worker_goes_on_with_what_another_one_noted_before_it_was_killed() {
    let ceph = Ceph::connect();
    let deployment = deployment(&ceph, "s3_nodes_killed");
    let mut first = Worker::start(&deployment.worker);
    let source = upload(&deployment.client, 1, SEGMENTS);
    let job = deployment.begin(&source);
    first.kill9();
    let second = Worker::start(&deployment.worker);
    deployment.expect_success(&ceph, &job);
    let progress = deployment.client.progress(&job);
    assert!(progress["attempt"].as_u64() >= Some(2), "{progress}");
    assert!(second.log().contains("segments.noted="), "{}", second.log());
    assert!(!second.log().contains("segments.noted=0"), "it went on");
}

#[test]
fn a_worker_that_stood_still_takes_nothing_away_when_it_goes_on() {
    let ceph = Ceph::connect();
    let deployment = deployment(&ceph, "s3_nodes_zombie");
    let zombie = Worker::start(&deployment.worker);
    let source = upload(&deployment.client, 1, SEGMENTS);
    let job = deployment.begin(&source);
    zombie.pause();
    let _heir = Worker::start(&deployment.worker);
    let ended = deployment.client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    deployment.expect_nothing_staged(&ceph);
    zombie.go_on();
    until("the zombie to learn that it is over", || {
        let told = zombie.log().contains("job lost to another attempt");
        told.then_some(())
    });
    deployment.expect_success(&ceph, &job);
}

#[test]
fn a_node_whose_clock_is_a_day_off_puts_and_gets_bytes() {
    let ceph = Ceph::connect();
    for (name, offset) in [("ahead", "+1d"), ("behind", "-1d")] {
        let (url, blobs, others) = (
            database::fresh(&format!("s3_nodes_{name}")),
            ceph.bucket(),
            ceph.bucket(),
        );
        let key = (ceph.access_key(), &*ceph.secret_file());
        let text = [
            config::postgres(&url),
            config::s3_store(ceph.url(), &blobs, key),
            config::s3(ceph.url(), key),
            config::deletion_grace(0),
        ];
        let server = Server::start(Options {
            environment: crate::nodes::clock_off_by(offset),
            ..Options::config(text.concat())
        });
        let client = server.user();
        // In parts: one segment is larger than a request's body.
        let wanted = Digests::of(Content::new(1, SEGMENT + MIB));
        let image = client.image("image", 1, SEGMENT + MIB);
        assert_eq!(client.download(&image), wanted, "{offset}");
        let object = format!("{others}:disk.raw");
        client.exported(&image, &object, "raw");
        let again = client.imported(&object, json!({}));
        assert_eq!(client.download(&again), wanted, "{offset}");
        server.verify();
        for image in [&image, &again] {
            client.delete(&format!("/v2/images/{image}")).expect(204);
        }
        until("the bytes to go", || {
            let mut keys = ceph.keys(&blobs);
            keys.retain(|key| !key.contains("/labels/"));
            keys.is_empty().then_some(())
        });
    }
}

#[test]
fn a_network_that_fails_in_every_way_costs_time_and_no_bytes() {
    const LENGTH: u64 = 20_000_123;
    let ceph = Ceph::connect();
    let network = Network::before(ceph.url());
    let bucket = ceph.bucket();
    let key = (ceph.access_key(), &*ceph.secret_file());
    let store = config::s3_store(network.url(), &bucket, key);
    let server = Server::start(Options::config(store + &config::deletion_grace(0)));
    let client = server.user();
    let key = client.create_key("key");
    let wanted = Digests::of(Content::new(1, LENGTH));
    for fault in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Reset,
        Fault::Lost,
        Fault::Cut(100),
        Fault::Short(100),
        Fault::Wrong(50),
        Fault::Slow,
    ] {
        let spoils_answers_alone = matches!(
            fault,
            Fault::Cut(_) | Fault::Short(_) | Fault::Wrong(_) | Fault::Slow
        );
        // Bytes that come wrong twice are damage.
        let times = if matches!(fault, Fault::Wrong(_)) {
            1
        } else {
            2
        };
        for part in ["/blobs/", "/manifest", "/00000000"] {
            network.fail("GET", part, fault, times);
        }
        if !spoils_answers_alone {
            for (method, part) in [
                ("PUT", "partNumber"),
                ("PUT", "/blobs/"),
                ("POST", "uploadId="),
            ] {
                network.fail(method, part, fault, 2);
            }
        }
        let met = network.met();
        let image = client.image("source", 1, LENGTH);
        let sealed = client.replicate_with(&image, under(&key));
        for image in [&image, &sealed] {
            assert_eq!(client.download(image), wanted, "{fault:?}");
            client.delete(&format!("/v2/images/{image}")).expect(204);
        }
        assert!(network.met() > met, "{fault:?}");
        network.heal();
    }
    until("the bytes to go", || {
        let mut keys = ceph.keys(&bucket);
        keys.retain(|key| !key.contains("/labels/"));
        keys.is_empty().then_some(())
    });
    server.verify();
}
