//! A PgBouncer of a test's own, in transaction mode, as an operator would have it in front of PostgreSQL.
//!
//! Also compiled into the tests of `calotype-catalog`, which need the same.

use std::net::TcpStream;
use std::process::{Child, Stdio};

use super::local::{as_postgres, free_port, until};

/// A running PgBouncer. It is killed when the value goes out of scope.
pub struct PgBouncer {
    process: Child,
    port: u16,
    _home: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts one in front of the server at this URL, for all of its databases. It lets in whoever asks, and is the URL's
    /// user to the server.
    pub fn start(server: &str) -> Self {
        let port = free_port();
        let home = tempfile::TempDir::with_prefix("calotype-pgbouncer-").expect("a directory");
        let file = home.path().join("pgbouncer.ini");
        let users = home.path().join("users");
        std::fs::write(&users, "\"postgres\" \"\"\n").expect("the users");
        // Few servers, so that clients take turns on them, and no parameter that it would not refuse by default.
        let text = format!(
            "[databases]\n* = {}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             max_client_conn = 500\ndefault_pool_size = 4\nserver_idle_timeout = 2\n",
            target(server),
            users.display()
        );
        std::fs::write(&file, text).expect("the configuration");
        let log = std::fs::File::create(home.path().join("log")).expect("the log");
        let process = as_postgres("/usr/sbin/pgbouncer", home.path())
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("pgbouncer runs: `cargo xtask test` installs it");
        let mut pooler = Self {
            process,
            port,
            _home: home,
        };
        pooler.wait();
        pooler
    }

    /// Where it answers, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn wait(&mut self) {
        until("pgbouncer to accept", || {
            let ended = self.process.try_wait().expect("the process's state");
            assert!(ended.is_none(), "pgbouncer ended: {ended:?}");
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server of a URL (`postgres://USER[:PASSWORD]@HOST:PORT/NAME`) in the words of PgBouncer's configuration.
fn target(url: &str) -> String {
    let (_, rest) = url.split_once("://").expect("a URL");
    let (login, rest) = rest.split_once('@').expect("a URL with a user");
    let (address, _) = rest.split_once('/').expect("a URL with a database");
    let (host, port) = address.split_once(':').expect("a URL with a port");
    let login = match login.split_once(':') {
        Some((user, password)) => format!("user={user} password={password}"),
        None => format!("user={login}"),
    };
    format!("host={host} port={port} {login}")
}
