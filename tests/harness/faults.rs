//! A network that fails on demand, before a server that speaks HTTP: answers that are wrong, short, slow, late, lost, or an
//! error, and connections that are reset or stand still.
//!
//! Each connection carries one request. Also compiled into the tests of `calotype-blob`, which need the same.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::http::{END, Request};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not arrive, and an answer with this status comes.
    Status(u16),
    /// It does not arrive, and the connection is reset.
    Reset,
    /// It arrives, and the connection is reset before the answer comes.
    Lost,
    /// It does not arrive, and no answer comes.
    Stall,
    /// No answer comes, and it arrives when the faults are over.
    Late,
    /// The answer breaks off after so many bytes of its body.
    Cut(usize),
    /// The answer's body has this length, and says so.
    Short(usize),
    /// The answer's body is another one from this byte on.
    Wrong(usize),
    /// The answer's body drips, whatever its size.
    Slow,
}

/// Of how many pieces a body that drips is at most, so that a large one takes no longer than a small one.
const DRIPS: usize = 100;

/// How long each of them is waited for.
const DRIP: Duration = Duration::from_millis(20);

struct Rule {
    method: &'static str,
    part: String,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// How many faults there were.
    met: usize,
    /// Requests that stand still.
    held: usize,
    healed: u64,
    asked: Vec<(String, String)>,
}

struct Shared {
    to: String,
    state: Mutex<State>,
    changed: Condvar,
}

/// The address that leads to the server.
pub struct Network {
    url: String,
    shared: Arc<Shared>,
}

impl Network {
    /// One that leads to the server at this URL, and works.
    pub fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            to: url.trim_start_matches("http://").to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let listening = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&listening);
                // One that breaks off is what a test wants.
                std::thread::spawn(move || shared.serve(connection).ok());
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

    /// Lets the next `times` requests of a method whose path and query have this part in them fail.
    pub fn fail(&self, method: &'static str, part: &str, fault: Fault, times: usize) {
        self.shared.locked().rules.push(Rule {
            method,
            part: part.to_owned(),
            fault,
            left: times,
        });
    }

    /// Ends all faults; what is late arrives now.
    pub fn heal(&self) {
        let mut state = self.shared.locked();
        state.rules.clear();
        state.healed += 1;
        self.shared.changed.notify_all();
    }

    /// How many requests have failed.
    pub fn met(&self) -> usize {
        self.shared.locked().met
    }

    /// Waits until a request stands still.
    pub fn wait_until_held(&self) {
        let mut state = self.shared.locked();
        while state.held == 0 {
            let woken = self.shared.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until none does any more.
    pub fn wait_until_none_is_held(&self) {
        let mut state = self.shared.locked();
        while state.held > 0 {
            let woken = self.shared.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many requests of a method there were whose path and query have this part in them.
    pub fn asked(&self, method: &str, part: &str) -> usize {
        let state = self.shared.locked();
        let these = state.asked.iter();
        these
            .filter(|(by, path)| by == method && path.contains(part))
            .count()
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault_for(&self, method: &str, path: &str) -> Option<Fault> {
        let mut state = self.locked();
        state.asked.push((method.to_owned(), path.to_owned()));
        let rule = state.rules.iter_mut().find(|rule| {
            rule.left > 0 && rule.method == method && path.contains(rule.part.as_str())
        })?;
        rule.left -= 1;
        let fault = rule.fault;
        state.met += 1;
        Some(fault)
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let request = Request::read(&mut client)?;
        match self.fault_for(request.method(), request.path()) {
            None => {
                let answer = self.forward(&request)?;
                client.write_all(&answer)
            }
            Some(Fault::Status(status)) => {
                let answer = format!(
                    "HTTP/1.1 {status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                client.write_all(answer.as_bytes())
            }
            Some(Fault::Reset) => reset(client),
            Some(Fault::Lost) => {
                self.forward(&request)?;
                reset(client)
            }
            Some(Fault::Stall) => self.hold(|| Ok(())),
            Some(Fault::Late) => self.hold(|| self.forward(&request).map(|_| ())),
            Some(fault) => {
                let answer = self.forward(&request)?;
                spoil(client, answer, fault)
            }
        }
    }

    /// Waits until the faults are over, and does something then.
    fn hold(&self, then: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.locked();
        let healed = state.healed;
        state.held += 1;
        self.changed.notify_all();
        while state.healed == healed {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let done = then();
        self.locked().held -= 1;
        self.changed.notify_all();
        done
    }

    fn forward(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        request.forward(&self.to)?.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn spoil(mut client: TcpStream, mut answer: Vec<u8>, fault: Fault) -> io::Result<()> {
    let end = answer.windows(END.len()).position(|part| part == END);
    let begin = end.unwrap_or_default() + END.len();
    match fault {
        Fault::Cut(length) => {
            answer.truncate(begin + length);
            client.write_all(&answer)
        }
        Fault::Short(length) => {
            let head = String::from_utf8_lossy(&answer[..begin]).into_owned();
            let lines = head.split_terminator("\r\n").map(|line| {
                match line.to_ascii_lowercase().starts_with("content-length:") {
                    true => format!("Content-Length: {length}\r\n"),
                    false => format!("{line}\r\n"),
                }
            });
            let head: String = lines.collect();
            client.write_all(head.as_bytes())?;
            let body = &answer[begin..];
            client.write_all(&body[..length.min(body.len())])
        }
        Fault::Wrong(from) => {
            for byte in answer.iter_mut().skip(begin + from) {
                *byte ^= 0x55;
            }
            client.write_all(&answer)
        }
        Fault::Slow => {
            client.write_all(&answer[..begin])?;
            let body = &answer[begin..];
            for piece in body.chunks(body.len().div_ceil(DRIPS).max(1)) {
                std::thread::sleep(DRIP);
                client.write_all(piece)?;
            }
            Ok(())
        }
        _ => client.write_all(&answer),
    }
}

/// Ends a connection as a peer does that is gone.
fn reset(client: TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    Ok(())
}
