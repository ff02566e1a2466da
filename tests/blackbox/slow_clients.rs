//! Clients that are slow on purpose: each is cut, and a good one beside them is served.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use calotype_tests::{Client, Content, Digests, Options, Server, config, until};
use serde_json::json;

const MIB: u64 = 1 << 20;

/// A connection, and what its server has said on it.
pub(crate) struct Wire {
    stream: TcpStream,
    pub(crate) said: Vec<u8>,
}

impl Wire {
    pub(crate) fn open(base: &str) -> Self {
        let address = base.trim_start_matches("http://");
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nonblocking(true).expect("not blocking");
        let said = Vec::new();
        Self { stream, said }
    }

    /// Sends what there is room for; false where the connection is over.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write(bytes) {
            Ok(sent) => sent == bytes.len(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Sends all of it.
    pub(crate) fn send_all(&mut self, mut bytes: &[u8]) {
        until("the bytes to be sent", || {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            bytes.is_empty().then_some(())
        });
    }

    /// Reads what there is; true where the server has closed the connection.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.said.extend(&buffer[..count]),
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }

    /// The status of the answer, once there is one.
    pub(crate) fn status(&mut self) -> u16 {
        let mut over = false;
        until("an answer", || {
            let line = self.said.split(|byte| *byte == b'\r').next();
            let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
            let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
            assert!(status.is_some() || !over, "closed without an answer");
            over = over || self.is_over();
            status
        })
    }
}

/// The head of an upload of so many bytes.
pub(crate) fn upload_head(client: &Client, image: &str, size: u64) -> String {
    format!(
        "PUT /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n",
        client.token()
    )
}

/// An image that waits for its bytes.
pub(crate) fn queued(client: &Client) -> String {
    let fields = json!({"name": "waits", "disk_format": "raw", "container_format": "bare"});
    let made = client.post("/v2/images", fields).expect(201).json();
    calotype_tests::client::text(&made["id"])
}

fn cut(server: &Server, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    server.metric("calotype_http_cut_total", &[&reason])
}

/// Does what a good client does, while `others` go on.
fn a_good_client_is_served(server: &Server, others: impl FnMut() + Send) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut others = others;
        let done = &done;
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                others();
                std::thread::yield_now();
            }
        });
        let client = server.user();
        let image = client.image("good", 3, 2 * MIB);
        let read = client.download(&image);
        done.store(true, Ordering::Relaxed);
        assert_eq!(read, Digests::of(Content::new(3, 2 * MIB)));
    });
}

/// Waits until the server has closed every connection, to each of which bytes are sent on and on.
fn all_are_closed(mut wires: Vec<Wire>, drip: &[u8]) -> Vec<Wire> {
    let mut closed = Vec::new();
    until("all connections to be closed", || {
        let over = wires.extract_if(.., |wire| {
            wire.send(drip);
            wire.is_over()
        });
        closed.extend(over);
        wires.is_empty().then_some(())
    });
    closed
}

#[test]
fn hundreds_that_never_end_a_head_are_closed_and_a_good_client_is_served() {
    let server = Server::start(Options::config(config::patience(2, 60, 60)));
    // To the nodes themselves: a balancer keeps such heads from them.
    let nodes: Vec<&str> = server.bases().collect();
    let open = |at: usize| Wire::open(nodes[at % nodes.len()]);
    let mut wires: Vec<Wire> = (0..300).map(open).collect();
    for wire in &mut wires {
        wire.send_all(b"GET /v2/images HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    let dripping = &mut wires;
    a_good_client_is_served(&server, move || {
        for wire in dripping.iter_mut() {
            wire.send(b"a");
        }
    });
    for wire in all_are_closed(wires, b"a") {
        assert_eq!(wire.said, b"", "no answer was due");
    }
    assert_eq!(cut(&server, "header"), 300.0);
}

#[test]
fn connections_that_fall_silent_are_closed_before_their_first_request_and_after_it() {
    // A balancer's connections fall silent, too.
    let server = Server::start(Options::config(config::patience(5, 1, 60)).embedded());
    let mut wires: Vec<Wire> = (0..40).map(|_| Wire::open(server.base())).collect();
    for wire in &mut wires[..20] {
        wire.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for wire in &mut wires[..20] {
        assert_eq!(wire.status(), 200);
    }
    all_are_closed(wires, b"");
    assert_eq!((cut(&server, "header"), cut(&server, "idle")), (20.0, 20.0));
}

#[test]
fn uploads_that_drip_are_ended_and_a_good_client_is_served() {
    let server = Server::start(Options::config(config::upload_rate(16 << 10)));
    let client = server.user();
    let images: Vec<String> = (0..50).map(|_| queued(&client)).collect();
    let mut wires: Vec<Wire> = Vec::new();
    for image in &images {
        let mut wire = Wire::open(server.base());
        wire.send_all(upload_head(&client, image, MIB).as_bytes());
        wires.push(wire);
    }
    let dripping = &mut wires;
    a_good_client_is_served(&server, move || {
        for wire in dripping.iter_mut() {
            wire.send(b"a");
        }
    });
    let mut answers = Vec::new();
    until("all uploads to be answered", || {
        for wire in &mut wires {
            wire.send(b"a");
            wire.is_over();
        }
        let answered = wires.iter().all(|wire| !wire.said.is_empty());
        answered.then(|| answers.extend(wires.iter_mut().map(Wire::status)))
    });
    assert_eq!(answers, [408; 50]);
    assert_eq!(cut(&server, "slow_body"), 50.0);
    for image in &images {
        until("the image to wait again", || {
            (client.show(image)["status"] == "queued").then_some(())
        });
    }
}

#[test]
fn an_upload_that_stands_still_is_ended() {
    let server = Server::start(Options::config(config::patience(60, 60, 1)));
    let client = server.user();
    let image = queued(&client);
    let mut wire = Wire::open(server.base());
    wire.send_all(upload_head(&client, &image, MIB).as_bytes());
    wire.send_all(&[0; 1000]);
    assert_eq!(wire.status(), 408);
    assert_eq!(cut(&server, "stalled_body"), 1.0);
}

#[test]
fn downloads_that_are_not_read_are_ended_and_a_good_client_is_served() {
    let server = Server::start(Options::config(config::patience(60, 60, 2)));
    let client = server.user();
    let image = client.image("large", 1, 32 * MIB);
    let mut wires: Vec<Wire> = (0..30).map(|_| Wire::open(server.base())).collect();
    for wire in &mut wires {
        let head = format!(
            "GET /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {}\r\n\r\n",
            client.token()
        );
        wire.send_all(head.as_bytes());
    }
    a_good_client_is_served(&server, || {});
    until("the readers to be given up", || {
        (cut(&server, "stalled_reader") >= 30.0).then_some(())
    });
    assert_eq!(cut(&server, "stalled_reader"), 30.0);
    let held = server.metric("calotype_http_connections", &[]);
    assert!(held < 30.0, "{held} connections are held");
}
