//! The alerts of docs/alerts.yaml: each is about metrics that there are, fires when it is to, and says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use calotype_tests::{Client, Server, Worker, config, free_port, program};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("calotype_")).collect()
}

fn alerts(rules: &str) -> BTreeSet<&str> {
    let lines = rules.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

#[test]
fn every_metric_that_an_alert_asks_for_is_there_from_the_start() {
    let server = Server::with_defaults();
    let client = Client::anonymous(server.base());
    client.get("/versions").expect(200);
    let shown = client.get("/metrics").expect(200).text();
    let shown = metrics_in(&shown);
    let rules = read("docs/alerts.yaml");
    let rules = rules
        .lines()
        .filter(|line| line.trim().starts_with("expr: "));
    let rules = rules.collect::<Vec<_>>().join("\n");
    let asked = metrics_in(&rules);
    assert!(asked.len() > 5, "{asked:?}");
    let missing: Vec<_> = asked.difference(&shown).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Proves that metrics have each of these lines.
pub(crate) fn tells(metrics: &str, lines: &[&str]) {
    for line in lines {
        let mut told = metrics.lines();
        assert!(told.any(|told| told == *line), "{line}: {metrics}");
    }
}

#[test]
fn a_worker_tells_how_it_does_where_it_is_told_to_and_nothing_else() {
    let address = format!("127.0.0.1:{}", free_port());
    let _worker = Worker::start(&config::worker_metrics(&address));
    let client = Client::anonymous(&format!("http://{address}"));
    client.get("/healthz").expect(200);
    let shown = client.get("/metrics").expect(200).text();
    tells(
        &shown,
        &[
            "calotype_ready 1",
            "calotype_store_away{store=\"main\"} 0",
            "calotype_jobs_waiting 0",
        ],
    );
    assert!(
        shown.contains("\ncalotype_collector_behind_seconds "),
        "{shown}"
    );
    for path in ["/versions", "/v2/images", "/readyz"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
}

#[test]
fn every_alert_has_a_paragraph_that_says_what_to_do() {
    let rules = read("docs/alerts.yaml");
    let page = read("docs/alerts.md");
    let headings: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(alerts(&rules), headings);
    for alert in headings {
        let link = format!("docs/alerts.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{link}");
    }
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_when_it_is_to() {
    let folder = tempfile::tempdir().expect("a directory");
    let rules = folder.path().join("alerts.yaml");
    fs::copy(root().join("docs/alerts.yaml"), &rules).expect("the rules");
    let cases = read("tests/fixtures/alerts.test.yaml");
    for alert in alerts(&read("docs/alerts.yaml")) {
        assert!(
            cases.contains(&format!("\"{alert}\"")),
            "{alert} has no case"
        );
    }
    let file = folder.path().join("cases.yaml");
    fs::write(&file, cases).expect("the cases");
    program::run(
        "promtool",
        &[Path::new("check"), Path::new("rules"), &rules],
    );
    program::run("promtool", &[Path::new("test"), Path::new("rules"), &file]);
}
