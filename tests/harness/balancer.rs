//! A load balancer before a server's nodes: HAProxy and nginx as `docs/examples` has them, with other addresses, and with or
//! without TLS.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::local::until;

/// The nodes of the examples.
const NODES: [&str; 3] = ["10.0.0.11:9292", "10.0.0.12:9292", "10.0.0.13:9292"];

/// A balancer that runs. It is killed when the value goes out of scope.
pub struct Balancer {
    process: Child,
    url: String,
    _files: TempDir,
}

/// A certificate of 127.0.0.1 that nobody else has signed, and its key.
pub struct Certificate {
    files: TempDir,
}

impl Certificate {
    /// Makes one.
    pub fn make() -> Self {
        let made = Self {
            files: tempfile::tempdir().expect("a directory"),
        };
        let output = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args([
                "-subj",
                "/CN=calotype",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(made.key())
            .arg("-out")
            .arg(made.path())
            .output();
        let output = output.expect("openssl runs: `cargo xtask test` installs it");
        assert!(output.status.success(), "{output:?}");
        made
    }

    /// The certificate, in PEM.
    pub fn path(&self) -> PathBuf {
        self.files.path().join("images.crt")
    }

    fn key(&self) -> PathBuf {
        self.files.path().join("images.key")
    }

    /// Both in one file, as HAProxy has them.
    fn whole(&self) -> PathBuf {
        let read = |path: PathBuf| fs::read_to_string(path).expect("PEM");
        written(
            self.files.path(),
            "images.pem",
            &(read(self.path()) + &read(self.key())),
        )
    }
}

impl Balancer {
    /// HAProxy on a port, before at most three nodes, each a host and a port.
    pub fn haproxy(port: u16, nodes: &[String], tls: Option<&Certificate>) -> Self {
        let bind = match tls {
            None => format!("bind 127.0.0.1:{port}"),
            Some(tls) => format!("bind 127.0.0.1:{port} ssl crt {}", tls.whole().display()),
        };
        let text = adapted(
            "haproxy.cfg",
            &[
                ("bind :443 ssl crt /etc/haproxy/images.pem", &bind),
                // Two that were given one port must not share it.
                ("    maxconn 8192\n", "    maxconn 8192\n    noreuseport\n"),
                // Nodes of tests come faster than machines do, and are late more often.
                ("inter 2s fall 2 rise 2", "inter 500ms fall 6 rise 1"),
            ],
        );
        let files = tempfile::tempdir().expect("a directory");
        let file = written(files.path(), "haproxy.cfg", &with_nodes(&text, nodes));
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(file);
        Self::start(command, (port, tls), files)
    }

    /// nginx, as [`Balancer::haproxy`].
    pub fn nginx(port: u16, nodes: &[String], tls: Option<&Certificate>) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let root = files.path().display();
        let (listen, certificate, key) = match tls {
            None => (String::new(), String::new(), String::new()),
            Some(tls) => (
                " ssl".to_owned(),
                format!("ssl_certificate {};", tls.path().display()),
                format!("ssl_certificate_key {};", tls.key().display()),
            ),
        };
        let listen = format!("listen 127.0.0.1:{port}{listen};");
        let text = adapted(
            "nginx.conf",
            &[
                ("listen 443 ssl;", &listen),
                ("ssl_certificate /etc/nginx/images.crt;", &certificate),
                ("ssl_certificate_key /etc/nginx/images.key;", &key),
                ("    access_log off;\n", &temporary(files.path())),
            ],
        );
        let head = format!("daemon off; pid {root}/nginx.pid; error_log {root}/error.log;\n");
        let text = head + &with_nodes(&text, nodes);
        let file = written(files.path(), "nginx.conf", &text);
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(file).arg("-p").arg(files.path());
        Self::start(command, (port, tls), files)
    }

    /// Where it answers, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn start(
        mut command: Command,
        (port, tls): (u16, Option<&Certificate>),
        files: TempDir,
    ) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = File::create(files.path().join("log")).expect("a log");
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the balancer runs: `cargo xtask test` installs it");
        let balancer = Self {
            process,
            url: format!("{scheme}://127.0.0.1:{port}"),
            _files: files,
        };
        until("the balancer to accept", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        balancer
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // An error means that it had ended already.
        let _ = self.process.kill();
        self.process.wait().expect("its end");
    }
}

/// The example with other lines where it names addresses and certificates; each of them must be there.
fn adapted(name: &str, lines: &[(&str, &str)]) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut text = fs::read_to_string(examples.join(name)).expect("the example");
    for (line, instead) in lines {
        assert!(text.contains(line), "{name} has no {line:?}");
        text = text.replace(line, instead);
    }
    text
}

/// The example with these nodes for its own; the lines of those that are too many go.
fn with_nodes(text: &str, nodes: &[String]) -> String {
    assert!(nodes.len() <= NODES.len(), "the examples have three nodes");
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    for (number, example) in NODES.iter().enumerate() {
        let names_it = |line: &String| line.contains(example);
        let at = lines.iter().position(names_it);
        let at = at.unwrap_or_else(|| panic!("the example has no {example}"));
        match nodes.get(number) {
            Some(node) => lines[at] = lines[at].replace(example, node),
            None => drop(lines.remove(at)),
        }
    }
    lines.concat()
}

/// Where nginx keeps its files, which need not be root's.
fn temporary(folder: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let lines = kinds.map(|kind| format!("    {kind}_temp_path {}/{kind};\n", folder.display()));
    format!("    access_log off;\n{}", lines.concat())
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).expect("the configuration");
    file
}
