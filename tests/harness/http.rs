//! Requests over HTTP that something between a client and its server passes on, one for each connection.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

/// The end of a head.
pub(super) const END: &[u8] = b"\r\n\r\n";

/// A request, read whole.
pub(super) struct Request {
    /// The first line and the fields, without the empty line at their end.
    head: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn read(client: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            let end = bytes.windows(END.len()).position(|part| part == END);
            if let Some(end) = end {
                break end;
            }
            more(client, &mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let body = bytes.split_off(end + END.len());
        let mut request = Self { head, body };
        let length = request.field("content-length").unwrap_or_default();
        let length = length.parse().unwrap_or(0);
        while request.body.len() < length {
            more(client, &mut request.body)?;
        }
        Ok(request)
    }

    pub(super) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The path and the query.
    pub(super) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// What a field says.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Sends it to the server at this address; the connection that the answer comes on, and ends.
    pub(super) fn forward(&self, to: &str) -> io::Result<TcpStream> {
        let (first, fields) = self.head.split_once("\r\n").unwrap_or((&self.head, ""));
        let mut server = TcpStream::connect(to)?;
        write!(server, "{first}\r\nConnection: close\r\n{fields}\r\n\r\n")?;
        server.write_all(&self.body)?;
        Ok(server)
    }
}

fn more(client: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut part = vec![0; 64 << 10];
    let read = client.read(&mut part)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.extend_from_slice(&part[..read]);
    Ok(())
}
