//! A PostgreSQL server of the test's own, or the one that `CALOTYPE_TEST_POSTGRES_URL` names.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start their own database server"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A server; one that was started here is stopped when this is dropped.
pub(crate) struct Server {
    url: String,
    own: Option<(PathBuf, tempfile::TempDir)>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        if let Ok(url) = std::env::var("CALOTYPE_TEST_POSTGRES_URL") {
            return Self { url, own: None };
        }
        tokio::task::spawn_blocking(start_own).await.unwrap()
    }

    /// A database that each may connect to, to make its own.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes an empty database and returns its URL.
    pub(crate) async fn database(&self, name: &str) -> String {
        let name = format!("calotype_{:.40}_{}", name, std::process::id());
        self.execute(format!("create database {name}")).await;
        let (before, _) = self.url.rsplit_once('/').unwrap();
        format!("{before}/{name}")
    }

    /// A server that no other test uses, so that it can be stopped.
    pub(crate) async fn start_own() -> Self {
        tokio::task::spawn_blocking(start_own).await.unwrap()
    }

    /// Stops a server of our own as a crash would.
    pub(crate) fn crash(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Starts a server of our own that was stopped.
    pub(crate) fn start_again(&self) {
        self.control(&["-w", "-t", "60", "start"]);
    }

    fn control(&self, args: &[&str]) {
        let (bin, place) = self.own.as_ref().unwrap();
        let (data, log) = (place.path().join("data"), place.path().join("log"));
        let fixed = ["-D", data.to_str().unwrap(), "-l", log.to_str().unwrap()];
        run(&bin.join("pg_ctl"), &[&fixed[..], args].concat());
    }

    async fn execute(&self, sql: String) {
        let mut admin = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.crash();
        }
    }
}

fn start_own() -> Server {
    let bin = installed().expect(
        "no PostgreSQL is installed and CALOTYPE_TEST_POSTGRES_URL is not set: \
         `cargo xtask test` says how to get one",
    );
    let place = tempfile::Builder::new()
        .prefix("calotype-pg-")
        .tempdir()
        .unwrap();
    let root = place.path().to_str().unwrap().to_owned();
    let password = format!("p{}", place.path().file_name().unwrap().to_str().unwrap());
    std::fs::write(place.path().join("password"), &password).unwrap();
    if is_root() {
        assert!(
            Command::new("chown")
                .args(["-R", "postgres", &root])
                .status()
                .unwrap()
                .success()
        );
    }
    let (data, secret) = (format!("{root}/data"), format!("--pwfile={root}/password"));
    run(
        &bin.join("initdb"),
        &[
            "-D",
            &data,
            "-U",
            "postgres",
            &secret,
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ],
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{root}'\n\
         fsync = off\nmax_connections = 200\n"
    );
    let path = place.path().join("data/postgresql.conf");
    std::fs::write(path, settings).unwrap();
    let server = Server {
        url: format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres"),
        own: Some((bin, place)),
    };
    server.start_again();
    server
}

/// Runs a program of the server's, as the user `postgres` where we are root: it refuses to run as root.
fn run(program: &Path, args: &[&str]) {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let null = std::process::Stdio::null;
    let command = command
        .args(args)
        .current_dir("/")
        .stdin(null())
        .stdout(null())
        .stderr(null());
    assert!(
        command.status().unwrap().success(),
        "{} {args:?}",
        program.display()
    );
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut places: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    places.sort();
    places.reverse();
    places.extend(std::env::split_paths(&path));
    places
        .into_iter()
        .find(|bin| bin.join("initdb").is_file() && bin.join("pg_ctl").is_file())
}
