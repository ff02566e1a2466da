//! A standby of a PostgreSQL of a test's own: it has every commit before that is acknowledged, and can take its primary's place.

use std::process::Stdio;

use super::database::sql;
use super::local::{as_postgres, free_port, until};
use super::postgres::{Postgres, launch, programs};

/// A standby that replicates synchronously.
pub struct Standby {
    server: Postgres,
}

impl Standby {
    /// Copies a primary, follows it, and has it wait for the standby from now on.
    pub fn of(primary: &Postgres) -> Self {
        let home = tempfile::TempDir::with_prefix("calotype-own-standby-").expect("a directory");
        let copied = as_postgres(programs().join("pg_basebackup"), home.path())
            .arg("-D")
            .arg(home.path().join("data"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(primary.port.to_string())
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .env("PGPASSWORD", &primary.password)
            .stdout(Stdio::null())
            .status();
        assert!(copied.expect("pg_basebackup runs").success());
        let port = free_port();
        let process = launch(home.path(), port);
        let password = primary.password.clone();
        let server = Postgres {
            process,
            port,
            password,
            home,
        };
        server.wait();
        let url = primary.url();
        sql(&url, "alter system set synchronous_standby_names = '*'");
        sql(&url, "select pg_reload_conf()");
        until("the standby to be waited for", || {
            let state = sql(&url, "select sync_state from pg_stat_replication");
            (state.trim() == "sync").then_some(())
        });
        Self { server }
    }

    /// Kills the primary, and answers at its address from now on.
    pub fn take_the_place_of(self, mut primary: Postgres) -> Postgres {
        primary.kill9();
        let mut server = self.server;
        let promoted = sql(&server.url(), "select pg_promote()");
        assert_eq!(promoted.trim(), "t");
        server.kill9();
        server.port = primary.port;
        server.restart();
        server
    }
}
