//! A PostgreSQL of a test's own, which may be killed and started again. Who logs in shows a password.
//!
//! Also compiled into the tests of `calotype-catalog`, which need the same.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::local::{as_postgres, free_port, until};

/// A server. It is killed when the value goes out of scope.
pub struct Postgres {
    pub(super) process: Child,
    pub(super) port: u16,
    pub(super) password: String,
    pub(super) home: tempfile::TempDir,
}

impl Postgres {
    /// Makes and starts one, and waits until it answers.
    pub fn start() -> Self {
        let home = tempfile::TempDir::with_prefix("calotype-own-pg-").expect("a directory");
        let place = home.path().file_name().expect("a name");
        let password = format!("p{}", place.to_string_lossy());
        let secret = home.path().join("password");
        std::fs::write(&secret, &password).expect("the password");
        let port = free_port();
        let made = as_postgres(programs().join("initdb"), home.path())
            .arg("-D")
            .arg(home.path().join("data"))
            .arg(format!("--pwfile={}", secret.display()))
            .args(["-U", "postgres", "--auth=scram-sha-256", "--no-sync"])
            .args(["-E", "UTF8", "--locale=C.UTF-8"])
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb runs").success());
        let process = launch(home.path(), port);
        let server = Self {
            process,
            port,
            password,
            home,
        };
        server.wait();
        server
    }

    /// The URL of its first database.
    pub fn url(&self) -> String {
        let Self { password, port, .. } = self;
        format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres")
    }

    /// Kills it as a power cut would end it: the server, and with it all of its sessions.
    pub fn kill9(&mut self) {
        // An error means that the process had ended already, which is what is wanted.
        let _ = self.process.kill();
        self.process.wait().expect("the process's end");
    }

    /// Starts it again after its end.
    pub fn restart(&mut self) {
        // Sessions notice the server's death by themselves; until all have, another server is refused.
        until("PostgreSQL to start again", || {
            self.process = launch(self.home.path(), self.port);
            until("PostgreSQL to listen or to end", || {
                let listens = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
                let ended = self.process.try_wait().expect("the process's state");
                match (listens, ended) {
                    (true, _) => Some(true),
                    (_, Some(_)) => Some(false),
                    _ => None,
                }
            })
            .then_some(())
        });
        self.wait();
    }

    pub(super) fn wait(&self) {
        let port = self.port.to_string();
        until("PostgreSQL to answer", || {
            let ready = Command::new(programs().join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &port])
                .status();
            ready.expect("pg_isready runs").success().then_some(())
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill9();
    }
}

pub(super) fn launch(home: &Path, port: u16) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(home.join("log"))
        .expect("the log");
    as_postgres(programs().join("postgres"), home)
        .arg("-D")
        .arg(home.join("data"))
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
        .args(["-c", "max_connections=200", "-c"])
        .arg(format!("unix_socket_directories={}", home.display()))
        .args(["-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log"))
        .stderr(log)
        .spawn()
        .expect("PostgreSQL starts")
}

pub(super) fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.expect("PostgreSQL: `cargo xtask test` installs it");
    let places = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file());
    places
        .max()
        .expect("PostgreSQL: `cargo xtask test` installs it")
}
