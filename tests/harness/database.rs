//! Databases on the PostgreSQL that `cargo xtask test` started.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::engines::engine;
use crate::program;

/// A fresh database of this name; the result is its URL.
pub fn fresh(name: &str) -> String {
    let server = engine("CALOTYPE_TEST_POSTGRES_URL");
    let name = format!("{name}_{}", std::process::id());
    sql(
        &server,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    );
    sql(&server, &format!("CREATE DATABASE {name}"));
    let (address, _) = server.rsplit_once('/').expect("a URL with a database");
    format!("{address}/{name}")
}

/// A URL without its password, and that. Servers take it from a file of its own.
pub fn apart(url: &str) -> (String, Option<&str>) {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (login, place) = rest.split_once('@')?;
        let (user, password) = login.split_once(':')?;
        Some((format!("{scheme}://{user}@{place}"), Some(password)))
    });
    parts.unwrap_or_else(|| (url.to_owned(), None))
}

/// A lock on a table, under which nobody reads it. It ends when the value goes out of scope.
pub struct Locked(Child);

impl Locked {
    /// Takes the lock.
    pub fn table(url: &str, table: &str) -> Self {
        let mut session = Command::new("psql")
            .args([url, "--no-psqlrc", "-qAt"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql runs: `cargo xtask test` installs it");
        let input = session.stdin.as_mut().expect("an input");
        let statement =
            format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT 'held';\n");
        input.write_all(statement.as_bytes()).expect("a statement");
        let mut line = String::new();
        let output = session.stdout.as_mut().expect("an output");
        BufReader::new(output).read_line(&mut line).expect("a row");
        assert_eq!(line, "held\n");
        Self(session)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

/// Runs a statement, and returns its rows as `psql` prints them, unaligned and without headers.
pub fn sql(url: &str, statement: &str) -> String {
    program::run(
        "psql",
        &[
            url,
            "--no-psqlrc",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ],
    )
}
