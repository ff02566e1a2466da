//! An address in front of a server: it stays when the server comes back at another one, tells what was asked, and answers
//! in the server's place where it is told to.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An address that leads to a server. Each connection carries one request.
pub struct Front {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    to: Option<String>,
    instead: Option<Instead>,
    asked: Vec<Asked>,
}

/// An answer in the server's place.
struct Instead {
    under: String,
    answer: String,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its path.
    pub path: String,
    /// The token that it showed; empty where it showed none.
    pub token: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Front {
    /// An address that leads nowhere yet.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // One that breaks off is what a test may want.
                std::thread::spawn(move || serve(connection, &state).ok());
            }
        });
        Self {
            url: format!("http://{address}"),
            state,
        }
    }

    /// The address, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leads to a server from now on.
    pub fn lead_to(&self, base: &str) {
        let address = base.trim_start_matches("http://");
        locked(&self.state).to = Some(address.to_owned());
    }

    /// Answers what is asked under a path in the server's place, with a status line and headers, and a body.
    pub fn answer_instead(&self, under: &str, head: &str, body: &str) {
        let length = body.len();
        locked(&self.state).instead = Some(Instead {
            under: under.to_owned(),
            answer: format!(
                "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
        });
    }

    /// Lets the server answer everything again.
    pub fn let_through(&self) {
        locked(&self.state).instead = None;
    }

    /// The requests so far whose path ends so.
    pub fn asked(&self, end: &str) -> Vec<Asked> {
        let state = locked(&self.state);
        let these = state.asked.iter().filter(|asked| asked.path.ends_with(end));
        these.cloned().collect()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut client: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let (head, body) = request(&mut client)?;
    let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let token = fields.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("x-auth-token")
            .then(|| value.to_owned())
    });
    let (to, answer) = {
        let mut state = locked(state);
        let instead = state.instead.as_ref();
        let instead = instead.filter(|instead| path.starts_with(&instead.under));
        let answer = instead.map(|instead| instead.answer.clone());
        state.asked.push(Asked {
            path,
            token: token.unwrap_or_default(),
            body: body.clone(),
        });
        (state.to.clone(), answer)
    };
    if let Some(answer) = answer {
        return client.write_all(answer.as_bytes());
    }
    let to = to.ok_or(io::ErrorKind::NotConnected)?;
    let mut server = TcpStream::connect(to)?;
    write!(server, "{first}\r\nConnection: close\r\n{fields}\r\n\r\n")?;
    server.write_all(&body)?;
    io::copy(&mut server, &mut client)?;
    Ok(())
}

/// A request's head, without the empty line at its end, and its body.
fn request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    let end = loop {
        let end = bytes.windows(END.len()).position(|part| part == END);
        if let Some(end) = end {
            break end;
        }
        more(client, &mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let wanted = name.eq_ignore_ascii_case("content-length");
        wanted.then(|| value.parse::<usize>().ok())?
    });
    let mut body = bytes.split_off(end + END.len());
    while body.len() < length.unwrap_or_default() {
        more(client, &mut body)?;
    }
    Ok((head, body))
}

fn more(client: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 4096];
    let read = client.read(&mut part)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.extend_from_slice(&part[..read]);
    Ok(())
}
