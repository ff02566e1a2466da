//! Being asked to stop: what runs may end within the grace, what does not is cut off, and nothing is left
//! for another start to wait for.

use std::sync::mpsc;
use std::thread::JoinHandle;

use calotype_tests::worker::Worker;
use calotype_tests::{Answer, Client, Content, Digests, Options, Server, config, database, until};
use serde_json::json;

use crate::serve::Paused;

const LENGTH: u64 = 8 << 20;

/// An upload that waits in its middle.
struct Upload {
    image: String,
    go_on: mpsc::Sender<()>,
    uploader: JoinHandle<Option<Answer>>,
}

fn begin_upload(client: &Client) -> Upload {
    let image = client.create("in flight");
    let (started, start) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let body = Paused {
        content: Content::new(4, LENGTH),
        left_before_pause: 1 << 20,
        started,
        wait,
    };
    let uploader = {
        let (client, image) = (client.clone(), image.clone());
        std::thread::spawn(move || client.upload_stream(&image, body, LENGTH).ok())
    };
    start.recv().expect("the upload begins");
    until("the server to see the upload", || {
        (client.show(&image)["status"] == "saving").then_some(())
    });
    Upload {
        image,
        go_on,
        uploader,
    }
}

/// Waits until no node takes a new connection, whatever a balancer does.
pub(crate) fn refuses_connections(server: &Server) {
    for node in server.bases() {
        until("the node to take no new connections", || {
            std::net::TcpStream::connect(node.trim_start_matches("http://")).err()
        });
    }
}

#[test]
fn a_node_that_is_about_to_stop_says_so_and_goes_on_answering_for_the_delay() {
    let mut server = Server::start(Options::config(config::drain_delay(600)));
    let user = server.user();
    let users: Vec<Client> = server.bases().map(|node| user.at(node)).collect();
    for user in &users {
        assert_eq!(user.get("/readyz").status, 200);
    }
    server.terminate();
    let mut images = Vec::new();
    for user in &users {
        until("the node to say that it is not ready", || {
            (user.get("/readyz").status == 503).then_some(())
        });
        assert_eq!(user.get("/healthz").status, 200);
        let image = user.create("made at the last minute");
        assert_eq!(user.show(&image)["status"], "queued");
        images.push(image);
    }
    assert!(server.stop().success(), "asked a second time");
    server.restart();
    for image in &images {
        assert_eq!(server.user().show(image)["status"], "queued");
    }
}

#[test]
fn being_asked_a_second_time_cuts_off_what_still_runs() {
    // One of several on a database: its next start does not know that nobody else goes on with what it did.
    let data = tempfile::tempdir().expect("a directory");
    let shared = config::shared(&database::fresh("stopping"), data.path());
    let mut server = Server::start(Options {
        data: Some(data.path().to_owned()),
        ..Options::config(shared)
    });
    let upload = begin_upload(&server.user().at(server.one_base()));
    server.terminate();
    refuses_connections(&server);
    assert!(server.stop().success(), "asked for, so it is no failure");
    was_cut_off(&mut server, upload);
}

#[test]
fn the_end_of_the_grace_cuts_off_what_still_runs() {
    let mut server = Server::start(Options::config(config::shutdown_grace(1)));
    let upload = begin_upload(&server.user().at(server.one_base()));
    assert!(server.stop().success(), "asked for, so it is no failure");
    was_cut_off(&mut server, upload);
}

fn was_cut_off(server: &mut Server, upload: Upload) {
    upload.go_on.send(()).expect("the uploader waits");
    let answer = upload.uploader.join().expect("the uploader");
    assert!(answer.is_none(), "{answer:?}");
    server.restart();
    let client = server.user();
    // It need not wait for a lease to end, for the stop has told that nobody goes on with it.
    assert_eq!(client.show(&upload.image)["status"], "queued");
    until("its bytes to go", || (server.staged() == 0).then_some(()));
    let again = client.upload_stream(&upload.image, Content::new(4, LENGTH), LENGTH);
    again.expect("an answer").expect(204);
    assert_eq!(
        client.download(&upload.image),
        Digests::of(Content::new(4, LENGTH))
    );
    server.verify();
}

#[test]
fn jobs_that_wait_when_the_server_stops_are_done_by_its_next_start_and_none_twice() {
    let mut server = Server::start(Options::config(config::limits(100_000, 1000)));
    let client = server.user();
    let source = client.image("source", 1, 200_000);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.extend((0..50).map(|_| replica_of(&client.at(server.base()), &source)));
        assert!(server.stop().success());
        server.restart();
    }
    let client = client.at(server.base());
    each_was_done_once(&client, &jobs);
    server.verify_stopped();
}

#[test]
fn a_worker_of_its_own_does_the_jobs_of_a_server_that_has_none() {
    let blobs = tempfile::tempdir().expect("a directory");
    let shared = config::shared(&database::fresh("worker"), blobs.path());
    let limits = config::limits(100_000, 1000);
    let text = |workers| format!("{shared}\n{limits}{}", config::jobs(workers, 30));
    let server = Server::start(Options::config(text(0)));
    let client = server.user();
    let source = client.image("source", 1, 200_000);
    let mut jobs: Vec<_> = (0..20).map(|_| replica_of(&client, &source)).collect();
    for job in &jobs {
        let shown = client.show_job(job).expect(200).json();
        assert_eq!(shown["status"], "INIT", "there is no worker: {shown}");
    }
    let mut worker = Worker::start(&text(4));
    jobs.extend((0..100).map(|_| replica_of(&client, &source)));
    assert!(worker.stop().success());
    jobs.push(replica_of(&client, &source));
    let _second = Worker::start(&text(4));
    each_was_done_once(&client, &jobs);
    server.verify();
}

fn replica_of(client: &Client, source: &str) -> String {
    let accepted = client.copy(source, json!({"name": "replica"})).expect(200);
    accepted.json()["job_id"]
        .as_str()
        .expect("a job_id")
        .to_owned()
}

fn each_was_done_once(client: &Client, jobs: &[String]) {
    for id in jobs {
        let job = client.job(id);
        // One that was handed back was begun more than once; only one of its attempts can have had an effect.
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    }
    assert_eq!(client.list().len(), jobs.len() + 1);
}
