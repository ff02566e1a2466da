//! An address in front of a server: it stays when the server comes back at another one, tells what was asked, and answers
//! in the server's place where it is told to.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::http::Request;
use crate::until;

/// An address that leads to a server. Each connection carries one request.
pub struct Front {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when answers may go on.
    going_on: Condvar,
}

#[derive(Default)]
struct State {
    to: Option<String>,
    instead: Option<Instead>,
    asked: Vec<Asked>,
    /// How many more bytes of answers come through; none: all.
    left: Option<usize>,
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
        let shared = Arc::new(Shared::default());
        let listening = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&listening);
                // One that breaks off is what a test may want.
                std::thread::spawn(move || serve(connection, &shared).ok());
            }
        });
        Self {
            url: format!("http://{address}"),
            shared,
        }
    }

    /// The address, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leads to a server from now on.
    pub fn lead_to(&self, base: &str) {
        let address = base.trim_start_matches("http://");
        self.shared.locked().to = Some(address.to_owned());
    }

    /// Leads nowhere from now on: connections end without an answer.
    pub fn lead_nowhere(&self) {
        self.shared.locked().to = None;
    }

    /// Answers what is asked under a path in the server's place, with a status line and headers, and a body.
    pub fn answer_instead(&self, under: &str, head: &str, body: &str) {
        let length = body.len();
        self.shared.locked().instead = Some(Instead {
            under: under.to_owned(),
            answer: format!(
                "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
        });
    }

    /// Lets this many more bytes of the server's answers through, and then none.
    pub fn hold_after(&self, bytes: usize) {
        self.shared.locked().left = Some(bytes);
    }

    /// Waits until an answer is held.
    pub fn wait_until_held(&self) {
        until("an answer to be held", || {
            (self.shared.locked().left == Some(0)).then_some(())
        });
    }

    /// Lets the server answer everything again.
    pub fn let_through(&self) {
        let mut state = self.shared.locked();
        (state.instead, state.left) = (None, None);
        self.shared.going_on.notify_all();
    }

    /// The requests so far whose path ends so.
    pub fn asked(&self, end: &str) -> Vec<Asked> {
        let state = self.shared.locked();
        let these = state.asked.iter().filter(|asked| asked.path.ends_with(end));
        these.cloned().collect()
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of so many bytes may pass: waits while it is none.
    fn passing(&self, bytes: usize) -> usize {
        let mut state = self.locked();
        loop {
            match &mut state.left {
                None => return bytes,
                Some(0) => {
                    let woken = self.going_on.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
                Some(left) => {
                    let now = bytes.min(*left);
                    *left -= now;
                    return now;
                }
            }
        }
    }

    fn pass(&self, mut from: impl Read, mut to: impl Write) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(self.passing(rest.len()));
                to.write_all(now)?;
                rest = later;
            }
        }
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let request = Request::read(&mut client)?;
    let (to, answer) = {
        let mut state = shared.locked();
        let instead = state.instead.as_ref();
        let instead = instead.filter(|instead| request.path().starts_with(&instead.under));
        let answer = instead.map(|instead| instead.answer.clone());
        state.asked.push(Asked {
            path: request.path().to_owned(),
            token: request.field("x-auth-token").unwrap_or_default().to_owned(),
            body: request.body.clone(),
        });
        (state.to.clone(), answer)
    };
    if let Some(answer) = answer {
        return client.write_all(answer.as_bytes());
    }
    let to = to.ok_or(io::ErrorKind::NotConnected)?;
    shared.pass(request.forward(&to)?, client)
}
