//! Databases on the PostgreSQL that `cargo xtask test` started.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::engines::engine;
use crate::local::until;
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

/// A row at which whoever writes it stands still, in the middle of a transaction, until it is killed.
pub struct Gate {
    url: String,
}

impl Gate {
    /// One in a table; `key` is the expression over `new` that says which row it is.
    pub fn on(url: &str, table: &str, key: &str) -> Self {
        sql(
            url,
            &format!(
                "create table gate (key text);
                 create function hold() returns trigger language plpgsql as $$ begin
                     if exists (select from gate where gate.key = {key}) then
                         perform pg_sleep(600);
                     end if;
                     return new;
                 end $$;
                 create trigger hold before insert or update on {table}
                     for each row execute function hold();"
            ),
        );
        // What the server does for who was killed ends soon.
        let name = sql(url, "select current_database()");
        let name = name.trim();
        sql(
            url,
            &format!("alter database {name} set client_connection_check_interval = '20ms'"),
        );
        Self {
            url: url.to_owned(),
        }
    }

    /// Lets nobody past the row that has this key. The one that it was closed at before is free again.
    pub fn close(&self, key: &str) {
        sql(
            &self.url,
            &format!("delete from gate; insert into gate values ('{key}')"),
        );
    }

    /// Waits until somebody stands there. `alive` panics where nobody will come any more.
    pub fn wait_until_held(&self, mut alive: impl FnMut()) {
        until("somebody to come to the gate", || {
            alive();
            self.holds().then_some(())
        });
    }

    /// Waits until the server knows that who stood there was killed.
    pub fn wait_until_left(&self) {
        until("the gate to be left", || (!self.holds()).then_some(()));
    }

    fn holds(&self) -> bool {
        let waiting = "select count(*) from pg_stat_activity \
                       where datname = current_database() and wait_event = 'PgSleep'";
        sql(&self.url, waiting).trim() != "0"
    }

    /// Takes it away.
    pub fn open(self) {
        sql(&self.url, "drop function hold cascade; drop table gate");
    }
}

/// Backs a database up into a file.
pub fn dump(url: &str, file: &Path) {
    let file = file.display().to_string();
    program::run("pg_dump", &["--format=custom", "--file", &file, url]);
}

/// Puts a backup into an empty database.
pub fn restore(file: &Path, url: &str) {
    let file = file.display().to_string();
    program::run("pg_restore", &["--exit-on-error", "--dbname", url, &file]);
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
