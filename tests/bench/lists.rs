//! Records and lists at a thousand and at a hundred thousand images, on SQLite.

use std::time::{Duration, Instant};

use calotype_tests::{Client, Options, Server, config};
use serde_json::{Value, json};

use crate::filters;
use crate::report::{Report, quantile, time_text};
use crate::wire::Wire;

pub(crate) const CONNECTIONS: usize = 32;
const FEW: usize = 1_000;
const MANY: usize = 100_000;
const LOAD: Duration = Duration::from_secs(10);

pub(crate) fn measure(report: &mut Report) {
    let server = Server::start(Options::config(config::limits(1_000_000, 10)));
    let client = server.user();
    let begin = Instant::now();
    seed(&client, 0, FEW);
    let few = lists(&client);
    seed(&client, FEW, MANY);
    let rate = MANY as f64 / begin.elapsed().as_secs_f64();
    report.alone(
        "records made, over 32 connections",
        format!("{rate:.0} a second"),
    );
    for ((name, many), (_, few)) in lists(&client).into_iter().zip(few) {
        let what = format!("page of 25 {name}, among 100,000 images, median");
        report.times(&what, many, "among 1,000", few);
    }
    let id = one(&client);
    loaded(
        report,
        &client,
        "GET /v2/images/{id}",
        &format!("/v2/images/{id}"),
    );
    for (name, path) in KINDS {
        let what = format!("GET /v2/images, page of 25 {name},");
        loaded(report, &client, &what, path);
    }
    filters::measure(report, &client, &id);
}

/// Makes the images from one number to another. One in ten has a tag. Ten have a rare property and rare values, all among the
/// first thousand: a list by it is as long among few images as among many.
fn seed(client: &Client, from: usize, to: usize) {
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut wire = Wire::open(client);
                for number in (from + connection..to).step_by(CONNECTIONS) {
                    let mut body = json!({
                        "name": format!("image-{number:06}"),
                        "disk_format": "raw",
                        "container_format": "bare",
                        "os_distro": "debian",
                    });
                    if number.is_multiple_of(10) {
                        body["tags"] = json!(["tenth"]);
                    }
                    if number < FEW && number % 100 == 77 {
                        rare(&mut body);
                    }
                    wire.post("/v2/images", &body.to_string(), 201);
                }
            });
        }
    });
}

fn rare(body: &mut Value) {
    for (name, value) in [
        ("rare", json!("yes")),
        ("min_disk", json!(40)),
        ("min_ram", json!(512)),
        ("disk_format", json!("qcow2")),
        ("container_format", json!("ovf")),
        ("protected", json!(true)),
        ("__os_version", json!("CentOS 7.2 64bit")),
        ("__support_kvm", json!("true")),
    ] {
        body[name] = value;
    }
}

/// The kinds of lists that are measured.
const KINDS: [(&str, &str); 4] = [
    ("by default", "/v2/images?limit=25"),
    ("by name", "/v2/images?limit=25&name=image-000500"),
    ("by tag", "/v2/images?limit=25&tag=tenth"),
    ("by a rare property", "/v2/images?limit=25&rare=yes"),
];

/// The median time of each kind of list.
fn lists(client: &Client) -> Vec<(&'static str, Duration)> {
    let mut wire = Wire::open(client);
    let median = |(name, path)| {
        let once = || {
            let begin = Instant::now();
            wire.get(path);
            begin.elapsed()
        };
        let mut times: Vec<Duration> = std::iter::repeat_with(once).take(200).collect();
        (name, quantile(&mut times, 0.5))
    };
    KINDS.map(median).to_vec()
}

fn one(client: &Client) -> String {
    let mut wire = Wire::open(client);
    let page = wire.get("/v2/images?name=image-000500");
    let page: Value = serde_json::from_slice(page).expect("JSON");
    page["images"][0]["id"].as_str().expect("an id").to_owned()
}

fn loaded(report: &mut Report, client: &Client, what: &str, path: &str) {
    let mut times = load(client, path, LOAD);
    let rate = times.len() as f64 / LOAD.as_secs_f64();
    let (median, tail) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    report.alone(
        &format!("{what} among 100,000 images, 32 connections"),
        format!(
            "{rate:.0} a second, p50 {}, p99 {}",
            time_text(median),
            time_text(tail)
        ),
    );
}

/// The times of all requests that 32 connections make one after the other.
pub(crate) fn load(client: &Client, path: &str, long: Duration) -> Vec<Duration> {
    let paths = [path.to_owned()];
    load_on(std::slice::from_ref(client), CONNECTIONS, &paths, long)
}

/// The same of pages at all these places, by so many connections, spread evenly over these servers.
pub(crate) fn load_on(
    clients: &[Client],
    connections: usize,
    paths: &[String],
    long: Duration,
) -> Vec<Duration> {
    let deadline = Instant::now() + long;
    // Each begins at a place of its own.
    let ask = |client: &Client, connection: usize| {
        let mut wire = Wire::open(client);
        let mut times = Vec::new();
        let places = paths.iter().cycle();
        for path in places.skip(connection * paths.len() / connections) {
            if Instant::now() >= deadline {
                break;
            }
            let begin = Instant::now();
            wire.get(path);
            times.push(begin.elapsed());
        }
        times
    };
    std::thread::scope(|scope| {
        let callers = clients.iter().cycle().take(connections).zip(0..);
        let askers: Vec<_> = callers
            .map(|(caller, number)| scope.spawn(move || ask(caller, number)))
            .collect();
        let times = askers.into_iter().map(|asker| asker.join().expect("times"));
        times.flatten().collect()
    })
}
