//! A PgBouncer of a test's own, in transaction mode, as an operator would have it in front of PostgreSQL.
//!
//! Also compiled into the tests of `calotype-catalog`, which need the same.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bounds a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
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
        let mut command = if is_root() {
            // It does not run as root.
            let owned = Command::new("chown")
                .args(["-R", "postgres"])
                .arg(home.path())
                .status();
            assert!(owned.expect("chown runs").success());
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            command.args(["--", "/usr/sbin/pgbouncer"]);
            command
        } else {
            Command::new("/usr/sbin/pgbouncer")
        };
        let log = std::fs::File::create(home.path().join("log")).expect("the log");
        let process = command
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
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.process.try_wait().expect("the process's state");
            assert!(ended.is_none(), "pgbouncer ended: {ended:?}");
            assert!(Instant::now() < deadline, "pgbouncer does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
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

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.trim_ascii() == b"0"
}
