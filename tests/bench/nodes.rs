//! Many nodes on one PostgreSQL that keeps what it has committed (`fsync` is on): replicas, reads, and lists out of a million
//! images.

use std::time::{Duration, Instant};

use calotype_tests::{Client, Options, Server, Worker, config, database, until};

use crate::lists::load_on;
use crate::replicas;
use crate::report::{Report, quantile, time_text};
use crate::wire::Wire;

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 300;
const QUEUE: usize = 5_000;
const PROJECTS: usize = 8;
const NODES: usize = 3;
const MILLION: usize = 1_000_000;
const LOAD: Duration = Duration::from_secs(5);

/// What the nodes of a deployment share.
struct Shared {
    url: String,
    text: String,
    _store: tempfile::TempDir,
}

impl Shared {
    fn new(name: &str) -> Self {
        let url = database::fresh(name);
        let store = tempfile::tempdir().expect("a directory");
        let limits = config::limits(2 * MILLION as u64, 100_000);
        Self {
            text: format!("{}{limits}", config::shared(&url, store.path())),
            url,
            _store: store,
        }
    }

    fn with_workers(&self, count: u32) -> String {
        format!("{}{}", self.text, config::jobs(count, 30))
    }

    fn node(&self, workers: u32) -> Server {
        Server::start(Options::config(self.with_workers(workers)))
    }
}

pub(crate) fn measure(report: &mut Report) {
    one_replica(report);
    queue_of_replicas(report);
    reads(report);
    lists(report);
}

/// From the request to SUCCESS, on a node that does its own jobs.
fn one_replica(report: &mut Report) {
    let shared = Shared::new("bench_replica");
    let server = shared.node(64);
    let client = server.user();
    let image = replicas::image(&client, 1);
    let mut wire = Wire::open(&client);
    let once = || replicas::time(&client, &mut wire, &image);
    let mut times: Vec<_> = std::iter::repeat_with(once).take(ROUNDS).collect();
    for (name, part) in [("median", 0.5), ("p99", 0.99)] {
        report.alone(
            &format!("plain replica through PostgreSQL, POST to SUCCESS, {name}"),
            time_text(quantile(&mut times, part)),
        );
    }
}

/// A queue of eight projects that was filled before, and two workers that empty it. What one project has is counted in one row,
/// which each of its replicas locks until its commit is on the disk: so the rate of one project is the disk's.
fn queue_of_replicas(report: &mut Report) {
    let shared = Shared::new("bench_queue");
    let server = shared.node(0);
    let admin = server.admin();
    let projects = (0..PROJECTS).map(|n| admin.new_project(&format!("p{n}"), "member"));
    let projects: Vec<_> = projects
        .map(|client| {
            let image = replicas::image(&client, 1);
            (client, format!("/v1/cloudimages/{image}/copy"))
        })
        .collect();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (connection, (client, path)) in projects.iter().cycle().take(CONNECTIONS).enumerate() {
            scope.spawn(move || {
                let mut wire = Wire::open(client);
                for _ in (connection..QUEUE).step_by(CONNECTIONS) {
                    wire.post(path, r#"{"name":"replica"}"#, 200);
                }
            });
        }
    });
    let asked = begin.elapsed();
    let begin = Instant::now();
    let text = shared.with_workers(64);
    let _workers = [Worker::start(&text), Worker::start(&text)];
    let left = "select count(*) from jobs where status not in ('SUCCESS', 'FAIL')";
    until("all replicas to be made", || {
        (database::sql(&shared.url, left).trim() == "0").then_some(())
    });
    let made = begin.elapsed();
    let failed = "select count(*) from jobs where status = 'FAIL'";
    assert_eq!(database::sql(&shared.url, failed).trim(), "0");
    let rate = |time: Duration| format!("{:.0} a second", QUEUE as f64 / time.as_secs_f64());
    report.alone(
        "plain replicas of 8 projects through PostgreSQL, taken over 32 connections",
        rate(asked),
    );
    report.alone(
        "plain replicas of 8 projects through PostgreSQL, made by two workers out of a queue of 5,000, with the workers' start",
        rate(made),
    );
}

/// The same load over one node, two and three. They share the processors with each other, the database and who asks.
fn reads(report: &mut Report) {
    let shared = Shared::new("bench_reads");
    let mut nodes = vec![shared.node(0)];
    let client = nodes[0].user();
    let image = replicas::image(&client, 1);
    let path = format!("/v2/images/{image}");
    let mut first = None;
    for count in 1..=NODES {
        if nodes.len() < count {
            nodes.push(shared.node(0));
        }
        let clients: Vec<Client> = nodes.iter().map(|node| client.at(node.base())).collect();
        let mut times = load_on(&clients, CONNECTIONS, std::slice::from_ref(&path), LOAD);
        let rate = times.len() as f64 / LOAD.as_secs_f64();
        let of_first = rate / *first.get_or_insert(rate);
        let (median, tail) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        let (median, tail) = (time_text(median), time_text(tail));
        report.alone(
            &format!("GET /v2/images/{{id}} through PostgreSQL, 32 connections, nodes: {count}"),
            format!("{rate:.0} a second, p50 {median}, p99 {tail}, {of_first:.2} times one node's"),
        );
    }
}

/// Pages out of a million images of one project.
fn lists(report: &mut Report) {
    let shared = Shared::new("bench_million");
    let server = shared.node(0);
    let client = server.user();
    let image = replicas::image(&client, 1);
    let tag = client.put(
        &format!("/v2/images/{image}/tags/tenth"),
        serde_json::Value::Null,
    );
    tag.expect(204);
    multiply(&shared.url, &image);
    let one = |path: &str| vec![path.to_owned()];
    // Of images that no page showed before, at first.
    let places = (1..=MILLION / 1000).map(|page| {
        let image = format!("10000000-0000-4000-8000-{:012x}", page * 1000);
        format!("/v2/images?limit=25&marker={image}")
    });
    for (name, paths) in [
        ("by default", one("/v2/images?limit=25")),
        ("by name", one("/v2/images?limit=25&name=image-500000")),
        ("by tag", one("/v2/images?limit=25&tag=tenth")),
        ("of the IMS API", one("/v2/cloudimages?limit=25")),
        ("at 1,000 places", places.collect()),
    ] {
        for connections in [8, CONNECTIONS] {
            let clients = std::slice::from_ref(&client);
            let mut times = load_on(clients, connections, &paths, LOAD);
            let rate = times.len() as f64 / LOAD.as_secs_f64();
            let (median, tail) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
            let (median, tail) = (time_text(median), time_text(tail));
            report.alone(
                &format!("page of 25 {name} out of 1,000,000 images on PostgreSQL, {connections} connections"),
                format!("{rate:.0} a second, p50 {median}, p99 {tail}"),
            );
        }
    }
}

/// Makes a million images like this one, with its properties, and one in ten with its tags.
fn multiply(url: &str, image: &str) {
    let id = "'10000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0')";
    let series = format!("generate_series(1, {MILLION}) as n");
    let name = "'image-' || lpad(n::text, 6, '0')";
    let other = |fields: &str| {
        format!("lateral jsonb_populate_record(of, jsonb_build_object({fields})) as made")
    };
    let image_of = other(&format!(
        "'id', {id}, 'name', {name}, 'name_key', {name}, 'created_at', of.created_at + n"
    ));
    let part_of = other(&format!(
        "'image_id', {id}, 'created_at', of.created_at + n"
    ));
    for statement in [
        format!(
            "insert into images select made.* from images of, {series}, {image_of} \
             where of.id = '{image}'"
        ),
        format!(
            "insert into image_properties select made.* from image_properties of, {series}, \
             {part_of} where of.image_id = '{image}'"
        ),
        format!(
            "insert into image_tags select made.* from image_tags of, {series}, {part_of} \
             where of.image_id = '{image}' and n % 10 = 0"
        ),
        "vacuum analyze".to_owned(),
    ] {
        database::sql(url, &statement);
    }
}
