//! A PostgreSQL server of the test's own, or the one that `CALOTYPE_TEST_POSTGRES_URL` names.

#![expect(
    clippy::disallowed_methods,
    reason = "the environment says where the tests' server is"
)]

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::harness::postgres::Postgres;

/// A server; one that was started here is stopped when this is dropped.
pub(crate) struct Server {
    url: String,
    own: Option<Postgres>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        match std::env::var("CALOTYPE_TEST_POSTGRES_URL") {
            Ok(url) => Self { url, own: None },
            Err(_) => Self::start_own().await,
        }
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

    /// A server that no other test uses, so that it can be killed.
    pub(crate) async fn start_own() -> Self {
        let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
        Self {
            url: own.url(),
            own: Some(own),
        }
    }

    /// Kills a server of our own.
    pub(crate) fn crash(&mut self) {
        self.own.as_mut().unwrap().kill9();
    }

    /// Starts a server of our own that was killed.
    pub(crate) fn start_again(&mut self) {
        self.own.as_mut().unwrap().restart();
    }

    async fn execute(&self, sql: String) {
        let mut admin = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
    }
}
