//! Two servers on one PostgreSQL and one directory of blobs run one queue: each job is done once, also
//! where one of the two dies.

use std::time::Duration;

use calotype_tests::{Client, Digests, Options, Server, config, database};
use serde_json::{Value, json};

const JOBS: usize = 200;

struct Pair {
    first: Server,
    second: Server,
    _store: tempfile::TempDir,
}

fn pair(name: &str) -> Pair {
    let url = database::fresh(name);
    let store = tempfile::tempdir().expect("a directory");
    let text = format!(
        "{}\n{}",
        config::shared(&url, store.path()),
        config::limits(100_000, 1000)
    );
    let first = Server::start(Options::config(text.clone()));
    let second = Server::start(Options::config(text));
    Pair {
        first,
        second,
        _store: store,
    }
}

#[test]
fn two_servers_do_each_of_two_hundred_jobs_once() {
    let pair = pair("two_servers_once");
    let first = pair.first.user();
    let second = first.at(pair.second.base());
    let source = first.image("source", 1, 200_000);
    let jobs = ask_both(&first, &second, &source);
    for id in &jobs {
        // Asked of the other server than the one that took it: there is one truth.
        let job = second.job(id);
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        let progress = first
            .get(&format!("/v1/cloudimages/job/{id}"))
            .expect(200)
            .json();
        assert_eq!(progress["calotype"]["attempt"], 1, "{progress}");
    }
    each_made_one_image(&first, &jobs, &source);
    each_is_in_the_audit_trail_once(&pair, &jobs);
}

#[test]
fn every_job_ends_in_success_although_one_of_two_servers_dies() {
    let mut pair = pair("two_servers_death");
    let second = pair.first.user().at(pair.second.base());
    let admin = pair.first.admin().at(pair.second.base());
    let source = second.image("source", 1, 200_000);
    let jobs = std::thread::scope(|scope| {
        let asker = scope.spawn(|| ask_both(&second, &second, &source));
        std::thread::sleep(Duration::from_millis(150));
        pair.first.kill9();
        asker.join().expect("the second server answers")
    });
    for id in &jobs {
        let job = second.job(id);
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    }
    each_made_one_image(&second, &jobs, &source);
    admin.verify();
}

#[test]
fn what_one_server_acknowledged_the_other_shows() {
    let pair = pair("two_servers_read");
    let first = pair.first.user();
    let second = first.at(pair.second.base());
    for round in 0..20 {
        let image = first.image(&format!("image-{round}"), round, 70_000);
        assert_eq!(second.show(&image)["status"], "active");
        let wanted = Digests::of(calotype_tests::Content::new(round, 70_000));
        assert_eq!(second.download(&image), wanted);
        second.delete(&format!("/v2/images/{image}")).expect(204);
        first.get(&format!("/v2/images/{image}")).expect(404);
    }
}

fn ask_both(first: &Client, second: &Client, source: &str) -> Vec<String> {
    let ask = |number: usize| {
        let client = if number.is_multiple_of(2) {
            first
        } else {
            second
        };
        let accepted = client.copy(source, json!({"name": format!("replica-{number}")}));
        accepted.expect(200).json()["job_id"]
            .as_str()
            .expect("a job_id")
            .to_owned()
    };
    (0..JOBS).map(ask).collect()
}

fn each_made_one_image(client: &Client, jobs: &[String], source: &str) {
    let mut made: Vec<String> = jobs.iter().map(|job| client.job(job).image()).collect();
    made.push(source.to_owned());
    made.sort();
    let shown: Vec<Value> = client.list();
    let mut shown: Vec<&str> = shown
        .iter()
        .filter_map(|image| image["id"].as_str())
        .collect();
    shown.sort_unstable();
    assert_eq!(made, shown, "one image a job, and no other");
    let wanted = client.download(source);
    for image in made.iter().step_by(20) {
        assert_eq!(client.download(image), wanted);
    }
}

fn each_is_in_the_audit_trail_once(pair: &Pair, jobs: &[String]) {
    let copies = pair.first.user().audit("copyImage");
    assert_eq!(copies.len(), jobs.len());
}
