//! HTTP/1.1 on a bare connection: the load must cost less than what it measures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use calotype_tests::Client;

/// A connection that is kept open, for one request after the other.
pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
    host: String,
    token: String,
    line: String,
    body: Vec<u8>,
}

impl Wire {
    /// A connection for a caller.
    pub(crate) fn open(client: &Client) -> Self {
        Self::to(client.base().trim_start_matches("http://"), client.token())
    }

    /// A connection to any server, with a token.
    pub(crate) fn to(host: &str, token: &str) -> Self {
        let stream = TcpStream::connect(host).expect("the server accepts");
        stream.set_nodelay(true).expect("a TCP connection");
        Self {
            stream: BufReader::with_capacity(64 * 1024, stream),
            host: host.to_owned(),
            token: token.to_owned(),
            line: String::new(),
            body: Vec::new(),
        }
    }

    /// GET; returns the body, which must come with 200.
    pub(crate) fn get(&mut self, path: &str) -> &[u8] {
        self.head("GET", path, "application/json", 0);
        let status = self.answer();
        assert_eq!(status, 200, "GET {path}: {}", self.text());
        &self.body
    }

    /// POST of JSON; returns the body, which must come with this status.
    pub(crate) fn post(&mut self, path: &str, json: &str, wanted: u16) -> &[u8] {
        self.head("POST", path, "application/json", json.len() as u64);
        self.send(json.as_bytes());
        let status = self.answer();
        assert_eq!(status, wanted, "POST {path}: {}", self.text());
        &self.body
    }

    /// PUT of an image's bytes, from `parts` that have `length` bytes in all.
    pub(crate) fn put_bytes<'a>(
        &mut self,
        path: &str,
        length: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) {
        self.head("PUT", path, "application/octet-stream", length);
        for part in parts {
            self.send(part);
        }
        let status = self.answer();
        assert_eq!(status, 204, "PUT {path}: {}", self.text());
    }

    /// DELETE, which must be answered with 204.
    pub(crate) fn delete(&mut self, path: &str) {
        self.head("DELETE", path, "application/json", 0);
        let status = self.answer();
        assert_eq!(status, 204, "DELETE {path}: {}", self.text());
    }

    fn head(&mut self, method: &str, path: &str, media: &str, length: u64) {
        let (host, token) = (&self.host, &self.token);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Auth-Token: {token}\r\nAccept: application/json\r\n\
             Content-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send(head.as_bytes());
    }

    fn send(&mut self, bytes: &[u8]) {
        let sent = self.stream.get_mut().write_all(bytes);
        sent.expect("the server reads");
    }

    fn answer(&mut self) -> u16 {
        let status = self.next_line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            let line = self.next_line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            assert!(
                !line.starts_with("transfer-encoding"),
                "a body without a length"
            );
        }
        self.body.resize(length, 0);
        let read = self.stream.read_exact(&mut self.body);
        read.expect("the whole body");
        status.expect("a status")
    }

    fn next_line(&mut self) -> String {
        self.line.clear();
        let read = self.stream.read_line(&mut self.line);
        assert!(
            read.expect("an answer") > 0,
            "the server ended the connection"
        );
        self.line.trim_end().to_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
