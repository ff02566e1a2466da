//! Two nodes behind the balancers of docs/examples, also when one of them dies.

use calotype_tests::{Balancer, Client, Content, Digests, Options, Server};
use calotype_tests::{config, database, free_port};
use serde_json::json;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

struct World {
    client: Client,
    nodes: [Server; 2],
    balancer: Balancer,
    _files: TempDir,
}

fn world(name: &str, start: impl FnOnce(u16, &[String]) -> Balancer) -> World {
    let url = database::fresh(name);
    let files = tempfile::tempdir().expect("a directory");
    let root_key = files.path().join("root.key");
    let shared = config::shared(&url, &files.path().join("blobs"), &root_key);
    let port = free_port();
    let text = format!(
        "{shared}\n{}",
        config::behind(&format!("http://127.0.0.1:{port}"))
    );
    let nodes = [(); 2].map(|()| Server::start(Options::config(text.clone())));
    let addresses = nodes.each_ref().map(|node| {
        let address = node.base().trim_start_matches("http://");
        address.to_owned()
    });
    let balancer = start(port, &addresses);
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
    a_balancer_spreads_requests_and_goes_on_with_one_node(world("balancer_nginx", Balancer::nginx));
}

#[test]
fn haproxy_spreads_requests_over_nodes_and_goes_on_when_one_dies() {
    a_balancer_spreads_requests_and_goes_on_with_one_node(world(
        "balancer_haproxy",
        Balancer::haproxy,
    ));
}
