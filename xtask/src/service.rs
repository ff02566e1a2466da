//! The programs of an engine: children of this process with a log of their own, which are waited for and stopped by their
//! process ids.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Failure, Outcome, stop, target};

const START: Duration = Duration::from_secs(300);

/// A running service. It is stopped when the value goes out of scope.
pub struct Service {
    name: String,
    process: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it. What it logs outlives the run, for whoever wants to know why a test failed.
    pub fn start(name: &str, mut command: Command) -> Outcome<Self> {
        let path = target().join(format!("{name}.log"));
        let log = fs::File::create(&path)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::new(format!("can't start {name}: {error}")))?;
        Ok(Self {
            name: name.to_owned(),
            process,
            log: path,
        })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// Where it ends before, or takes too long; with what it logged.
    pub fn wait(&mut self, mut ready: impl FnMut() -> bool) -> Outcome {
        let deadline = Instant::now() + START;
        while !ready() {
            if let Some(status) = self.process.try_wait()? {
                return Err(self.failure(&format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.failure("does not answer"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Failure::new(format!("{} {what}\n{log}", self.name))
    }

    /// Stops it, and waits for its end.
    pub fn end(&mut self) {
        stop(&mut self.process, "TERM");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

/// The status with which a port of this machine answers `GET /`.
pub fn status_of(port: u16) -> Option<u16> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(60)))?;
        connection.write_all(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut start = vec![0; 12];
        connection.read_exact(&mut start)?;
        Ok(start)
    };
    let start = ask().ok()?;
    std::str::from_utf8(start.get(9..12)?).ok()?.parse().ok()
}

/// A port that nothing listens at.
pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Random bytes, in hexadecimal.
pub fn random_hex(bytes: usize) -> Outcome<String> {
    let mut random = vec![0; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
