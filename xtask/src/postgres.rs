//! A PostgreSQL of the run's own: on loopback, on a free port, with its data in a directory that goes
//! with it.
//!
//! It runs as a child of this process, as user `postgres` where the caller is root. It is stopped by its
//! process id when the value goes out of scope, also where the tests failed.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{is_root, postgres_programs, user_id};
use crate::process::{Failure, Outcome, output, stop, succeeds};

const START: Duration = Duration::from_secs(60);

/// Whether what is committed is on the disk.
#[derive(Debug, Clone, Copy)]
pub enum Fsync {
    /// As where it matters: for measurements.
    On,
    /// The tests kill calotype, and never the database's machine.
    Off,
}

/// A running database server.
pub struct Postgres {
    server: Child,
    directory: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes and starts one, and waits until it answers.
    pub fn start(fsync: Fsync) -> Outcome<Self> {
        let programs = postgres_programs()?;
        let user = if is_root() {
            let user = user_id(Some("postgres"));
            Some(user.ok_or_else(|| Failure::new("there is no user named postgres"))?)
        } else {
            None
        };
        let directory = std::env::temp_dir().join(format!("calotype-pg-{}", std::process::id()));
        std::fs::create_dir(&directory)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&directory, Some(user), None)?;
        }
        let cluster = directory.join("data");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let made = output(
            program(&programs, "initdb", &directory, user)
                .arg("-D")
                .arg(&cluster)
                .args(["-U", "postgres", "--auth=trust", "--no-sync"])
                .args(["-E", "UTF8", "--locale=C.UTF-8"]),
        );
        if let Err(failure) = made {
            // Nothing was started: what is left is a directory, and the failure matters more.
            let _ = std::fs::remove_dir_all(&directory);
            return Err(failure);
        }
        let log = std::fs::File::create(std::env::temp_dir().join("calotype-pg.log"))?;
        let server = program(&programs, "postgres", &directory, user)
            .arg("-D")
            .arg(&cluster)
            .args(["-c", "listen_addresses=127.0.0.1", "-c"])
            .arg(match fsync {
                Fsync::On => "fsync=on",
                Fsync::Off => "fsync=off",
            })
            .args(["-c", "max_connections=300", "-c", "shared_buffers=128MB"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", directory.display()))
            .args(["-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut postgres = Self {
            server,
            directory,
            port,
        };
        postgres.wait(&programs)?;
        Ok(postgres)
    }

    /// Where it answers: a database that every test may connect to, to make its own.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn wait(&mut self, programs: &Path) -> Outcome {
        let deadline = Instant::now() + START;
        let port = self.port.to_string();
        let mut ready = Command::new(programs.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &port]);
        while !succeeds(&mut ready) {
            if let Some(status) = self.server.try_wait()? {
                return Err(Failure::new(format!("PostgreSQL ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(Failure::new("PostgreSQL did not answer within a minute"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT: end the sessions and stop.
        stop(&mut self.server, "INT");
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

fn program(programs: &Path, name: &str, directory: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(programs.join(name));
    command.current_dir(directory);
    if let Some(user) = user {
        command.uid(user);
    }
    command
}
