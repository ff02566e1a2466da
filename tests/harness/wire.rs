//! A wire to an engine that fails on demand: bytes that stand still or crawl, connections that are reset or refused. It knows
//! no protocol; [`crate::faults`] spoils single requests and answers of HTTP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// All passes.
    #[default]
    Fine,
    /// Nothing passes, and nobody is told: packets are dropped.
    Still,
    /// In each direction of a connection so many kilobytes pass in a second.
    Slow(u32),
    /// Connections are reset as soon as they are made.
    Down,
}

#[derive(Default)]
struct State {
    weather: Weather,
    connections: Vec<Connection>,
    made: u64,
    /// How often something was reset, or held up.
    met: usize,
}

struct Connection {
    number: u64,
    ends: [TcpStream; 2],
    /// Directions that still have something to pass.
    open: u8,
}

#[derive(Default)]
struct Shared {
    to: String,
    state: Mutex<State>,
    changed: Condvar,
}

/// A wire.
pub struct Wire {
    address: String,
    shared: Arc<Shared>,
}

impl Wire {
    /// One that leads to a host and a port, or to those of a URL.
    pub fn before(to: &str) -> Self {
        let to = to.rsplit_once("//").map_or(to, |(_, rest)| rest);
        let to = to.split('/').next().unwrap_or(to);
        let to = to.rsplit_once('@').map_or(to, |(_, address)| address);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            to: to.to_owned(),
            ..Shared::default()
        });
        let listening = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // One that breaks off is what a test wants.
                let _ = listening.connect(client);
            }
        });
        Self { address, shared }
    }

    /// A URL with this wire's address in the place of the one that it leads to.
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.shared.to, &self.address)
    }

    /// Changes how it is. When it goes down, every connection is reset.
    pub fn becomes(&self, weather: Weather) {
        self.shared.locked().weather = weather;
        if weather == Weather::Down {
            self.reset();
        }
        self.shared.changed.notify_all();
    }

    /// Resets the connections that there are. Further ones can be made.
    pub fn reset(&self) {
        let mut state = self.shared.locked();
        state.met += state.connections.len();
        for connection in state.connections.drain(..) {
            connection.ends.iter().for_each(break_off);
        }
        self.shared.changed.notify_all();
    }

    /// How often something was reset, refused or held up.
    pub fn met(&self) -> usize {
        self.shared.locked().met
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.locked().weather == Weather::Down {
            self.locked().met += 1;
            break_off(&client);
            return Ok(());
        }
        let server = TcpStream::connect(&self.to)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let number = {
            let mut state = self.locked();
            state.made += 1;
            let number = state.made;
            state.connections.push(Connection {
                number,
                ends: [client.try_clone()?, server.try_clone()?],
                open: 2,
            });
            number
        };
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                let _ = shared.pass(number, from, to);
                shared.forget(number);
            });
        }
        Ok(())
    }

    fn pass(&self, number: u64, mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(self.passing(number, rest.len()));
                to.write_all(now)?;
                rest = later;
            }
        }
    }

    /// How many of so many bytes may pass now: waits while none may, as long as the connection is there.
    fn passing(&self, number: u64, bytes: usize) -> usize {
        let mut state = self.locked();
        let mut counted = false;
        loop {
            let lives = state.connections.iter().any(|one| one.number == number);
            if state.weather != Weather::Fine && !counted {
                state.met += 1;
                counted = true;
            }
            match state.weather {
                Weather::Slow(rate) => {
                    drop(state);
                    std::thread::sleep(Duration::from_millis(50));
                    return bytes.min((rate as usize * 1024 / 20).max(1));
                }
                Weather::Still if lives => {
                    let woken = self.changed.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
                _ => return bytes,
            }
        }
    }

    /// One direction of a connection has ended.
    fn forget(&self, number: u64) {
        let mut state = self.locked();
        state.connections.retain_mut(|connection| {
            connection.open -= u8::from(connection.number == number);
            connection.open > 0
        });
    }
}

/// Ends a connection as a peer does that is gone.
fn break_off(connection: &TcpStream) {
    // Errors mean that it has ended.
    let _ = rustix::net::sockopt::set_socket_linger(connection, Some(Duration::ZERO));
    let _ = connection.shutdown(Shutdown::Both);
}
