//! Two nodes behind the balancers of docs/examples, also when one of them dies.

use calotype_tests::balancer::Certificate;
use calotype_tests::{Balancer, Client, Content, Digests, Options, Server};
use calotype_tests::{config, database, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{Terminal, exit};

const MIB: u64 = 1 << 20;

struct World {
    client: Client,
    nodes: [Server; 2],
    balancer: Balancer,
    _files: TempDir,
}

type Start = fn(u16, &[String], Option<&Certificate>) -> Balancer;

fn world(name: &str, start: Start, tls: Option<&Certificate>) -> World {
    let url = database::fresh(name);
    let files = tempfile::tempdir().expect("a directory");
    let shared = config::shared(&url, files.path());
    let port = free_port();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let public = format!("{scheme}://127.0.0.1:{port}");
    let text = format!("{shared}\n{}", config::behind(&public));
    let nodes = [(); 2].map(|()| Server::start(Options::config(text.clone())));
    let addresses = nodes.each_ref().map(|node| {
        let address = node.base().trim_start_matches("http://");
        address.to_owned()
    });
    let balancer = start(port, &addresses, tls);
    World {
        // Logged in at the node that made the first users.
        client: nodes[0].user().at(balancer.url()),
        nodes,
        balancer,
        _files: files,
    }
}

/// Uploads, downloads and replicates through the balancer.
fn all_is_done(world: &World, seed: u64) {
    let client = &world.client;
    let image = client.image(&format!("through-{seed}"), seed, 20 * MIB);
    let wanted = Digests::of(Content::new(seed, 20 * MIB));
    assert_eq!(client.download(&image), wanted);
    let path = format!("/v1/cloudimages/{image}/copy");
    let begun = client.post(&path, json!({"name": format!("replica-{seed}")}));
    let begun = begun.expect(200).json();
    let job = client.job(&calotype_tests::client::text(&begun["job_id"]));
    assert_eq!(job.status(), "SUCCESS");
    let replica = calotype_tests::client::text(&job.document["entities"]["image_id"]);
    assert_eq!(client.download(&replica), wanted);
}

fn a_balancer_spreads_requests_and_goes_on_with_one_node(mut world: World) {
    all_is_done(&world, 1);
    let client = world.client.clone();
    for _ in 0..20 {
        client.get("/v2/images").expect(200);
    }
    for node in &world.nodes {
        let asked = node.metric("calotype_http_requests_total", &["route=\"/v2/images\""]);
        assert!(asked > 0.0, "a node was asked nothing");
    }
    assert_eq!(client.get("/metrics").status, 403);
    // What the catalog of services names leads through the balancer.
    let catalog = client.get("/identity/v3/auth/catalog").expect(200).text();
    assert!(catalog.contains(world.balancer.url()), "{catalog}");
    world.nodes[0].kill9();
    for _ in 0..50 {
        client.get("/v2/images").expect(200);
    }
    all_is_done(&world, 2);
}

#[test]
fn nginx_spreads_requests_over_nodes_and_goes_on_when_one_dies() {
    let world = world("balancer_nginx", Balancer::nginx, None);
    a_balancer_spreads_requests_and_goes_on_with_one_node(world);
}

#[test]
fn haproxy_spreads_requests_over_nodes_and_goes_on_when_one_dies() {
    let world = world("balancer_haproxy", Balancer::haproxy, None);
    a_balancer_spreads_requests_and_goes_on_with_one_node(world);
}

/// The command line works through a balancer that ends TLS, where it trusts the certificate, and nowhere else.
fn a_balancer_ends_tls(name: &str, start: Start) {
    let certificate = Certificate::make();
    let world = world(name, start, Some(&certificate));
    let terminal = Terminal::new(&world.nodes[0], "calotype", "json");
    let trusted = certificate.path().display().to_string();
    let run = |trusts: Option<&str>, arguments: &[&str]| {
        let mut command = terminal.command(arguments);
        if let Some(file) = trusts {
            command.env("OS_CACERT", file);
        }
        command.output().expect("calotype runs")
    };
    let list = ["image", "list"];
    let refused = run(None, &list);
    assert_eq!(refused.status.code(), Some(exit::FAILURE));
    let other = Certificate::make();
    let refused = run(Some(&other.path().display().to_string()), &list);
    assert_eq!(refused.status.code(), Some(exit::FAILURE));

    let done = |arguments: &[&str]| -> Value {
        let output = run(Some(&trusted), arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} {told}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let files = tempfile::tempdir().expect("a directory");
    let (there, back) = (files.path().join("there"), files.path().join("back"));
    let mut bytes = Vec::new();
    let mut content = Content::new(5, 3 * MIB);
    std::io::Read::read_to_end(&mut content, &mut bytes).expect("its bytes");
    std::fs::write(&there, &bytes).expect("the image");
    let (there, back) = (there.display().to_string(), back.display().to_string());
    done(&["image", "create", "--file", &there, "tls"]);
    done(&["image", "replicate", "tls", "--name", "replica", "--wait"]);
    done(&["image", "download", "replica", "--file", &back]);
    assert!(std::fs::read(&back).expect("the replica") == bytes);
}

#[test]
fn nginx_ends_tls_as_the_example_has_it() {
    a_balancer_ends_tls("balancer_nginx_tls", Balancer::nginx);
}

#[test]
fn haproxy_ends_tls_as_the_example_has_it() {
    a_balancer_ends_tls("balancer_haproxy_tls", Balancer::haproxy);
}
