//! Two nodes behind the balancers of docs/examples, also when one of them dies.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use calotype_tests::{Client, Content, Digests, Options, Server};
use calotype_tests::{config, database, free_port, until};
use serde_json::json;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A balancer that runs. It is killed when the value goes out of scope.
struct Balancer {
    process: Child,
    url: String,
}

impl Balancer {
    fn start(mut command: Command, log: &Path, port: u16) -> Self {
        let log = File::create(log).expect("a log");
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the balancer runs: `cargo xtask test` installs it");
        until("the balancer to accept", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        let url = format!("http://127.0.0.1:{port}");
        Self { process, url }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
    }
}

struct World {
    client: Client,
    nodes: [Server; 2],
    balancer: Balancer,
    _files: TempDir,
}

fn example(name: &str) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    fs::read_to_string(examples.join(name)).expect("the example")
}

/// The example with other lines where it names addresses and certificates; each of them must be there.
fn adapted(name: &str, lines: &[(&str, &str)]) -> String {
    let mut text = example(name);
    for (line, instead) in lines {
        assert!(text.contains(line), "{name} has no {line:?}");
        text = text.replace(line, instead);
    }
    text
}

fn world(name: &str, start: impl FnOnce(&Path, u16, &[String; 2]) -> Balancer) -> World {
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
    let addresses = [0, 1].map(|at: usize| {
        let address = nodes[at].base().trim_start_matches("http://");
        address.to_owned()
    });
    let balancer = start(files.path(), port, &addresses);
    World {
        // Logged in at the node that made the first users.
        client: nodes[0].user().at(&balancer.url),
        nodes,
        balancer,
        _files: files,
    }
}

fn nginx(folder: &Path, port: u16, nodes: &[String; 2]) -> Balancer {
    let listen = format!("listen 127.0.0.1:{port};");
    let text = adapted(
        "nginx.conf",
        &[
            ("listen 443 ssl;", &listen),
            ("ssl_certificate /etc/nginx/images.crt;", ""),
            ("ssl_certificate_key /etc/nginx/images.key;", ""),
            ("10.0.0.11:9292", &nodes[0]),
            ("10.0.0.12:9292", &nodes[1]),
            ("server 10.0.0.13:9292 max_fails=3 fail_timeout=5s;", ""),
        ],
    );
    let root = folder.display();
    let head = format!("daemon off; pid {root}/nginx.pid; error_log {root}/error.log;\n");
    let text = text.replace("    access_log off;", &temporary(folder));
    let file = written(folder, "nginx.conf", &(head + &text));
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(file).arg("-p").arg(folder);
    Balancer::start(command, &folder.join("nginx.log"), port)
}

/// Where nginx keeps its files, which need not be root's.
fn temporary(folder: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let lines = kinds.map(|kind| format!("    {kind}_temp_path {}/{kind};\n", folder.display()));
    format!("    access_log off;\n{}", lines.concat())
}

fn haproxy(folder: &Path, port: u16, nodes: &[String; 2]) -> Balancer {
    let bind = format!("bind 127.0.0.1:{port}");
    let text = adapted(
        "haproxy.cfg",
        &[
            ("bind :443 ssl crt /etc/haproxy/images.pem", &bind),
            ("10.0.0.11:9292", &nodes[0]),
            ("10.0.0.12:9292", &nodes[1]),
            ("    server node3 10.0.0.13:9292\n", ""),
        ],
    );
    let file = written(folder, "haproxy.cfg", &text);
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(file);
    Balancer::start(command, &folder.join("haproxy.log"), port)
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).expect("the configuration");
    file
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
    assert!(catalog.contains(&world.balancer.url), "{catalog}");
    world.nodes[0].kill9();
    for _ in 0..50 {
        client.get("/v2/images").expect(200);
    }
    all_is_done(&world, 2);
}

#[test]
fn nginx_spreads_requests_over_nodes_and_goes_on_when_one_dies() {
    a_balancer_spreads_requests_and_goes_on_with_one_node(world("balancer_nginx", nginx));
}

#[test]
fn haproxy_spreads_requests_over_nodes_and_goes_on_when_one_dies() {
    a_balancer_spreads_requests_and_goes_on_with_one_node(world("balancer_haproxy", haproxy));
}
