//! The dialect layer: one transaction, one row and one argument type over two engines.
//!
//! SQL is the same text on both; a value only ever reaches it as an argument. What differs is here: how
//! a transaction begins, how rows are locked, what time it is, and what an error of the engine means.
//!
//! # Crash consistency
//! A transaction that is dropped before [`Tx::commit`] returns was rolled back, or will be: SQLite runs in
//! WAL mode with `synchronous=FULL`, PostgreSQL with its own default, so a returned commit is durable.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Sqlite, Transaction};

use crate::postgres::{PgTx, Postgres};

/// A value for a placeholder. Nulls keep their type: PostgreSQL wants to know it.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
    Bool(Option<bool>),
    Blob(Option<Vec<u8>>),
}

impl Arg {
    pub(crate) fn text(value: impl fmt::Display) -> Self {
        Self::Text(Some(value.to_string()))
    }

    pub(crate) fn opt_text(value: Option<impl fmt::Display>) -> Self {
        Self::Text(value.map(|value| value.to_string()))
    }

    pub(crate) fn time(value: Timestamp) -> Self {
        Self::Int(Some(value.as_micros()))
    }

    pub(crate) fn opt_time(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(Timestamp::as_micros))
    }

    pub(crate) const fn blob(value: Vec<u8>) -> Self {
        Self::Blob(Some(value))
    }

    /// Counts beyond the column's range are as good as its end.
    pub(crate) fn count(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Bool(Some(value))
    }
}

/// A row of either engine, read by column name.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! getter {
    ($name:ident, $type:ty) => {
        pub(crate) fn $name(&self, column: &str) -> Result<$type> {
            match self {
                Self::Sqlite(row) => row.try_get(column),
                Self::Postgres(row) => row.try_get(column),
            }
            .map_err(Error::internal)
        }
    };
}

impl Row {
    getter!(text, String);
    getter!(opt_text, Option<String>);
    getter!(int, i64);
    getter!(opt_int, Option<i64>);
    getter!(bool, bool);
    getter!(opt_bool, Option<bool>);
    getter!(blob, Vec<u8>);
    getter!(opt_blob, Option<Vec<u8>>);

    pub(crate) fn count(&self, column: &str) -> Result<u64> {
        u64::try_from(self.int(column)?).map_err(Error::internal)
    }

    pub(crate) fn opt_count(&self, column: &str) -> Result<Option<u64>> {
        let value = self.opt_int(column)?;
        value
            .map(|value| u64::try_from(value).map_err(Error::internal))
            .transpose()
    }

    pub(crate) fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.int(column)?))
    }

    pub(crate) fn opt_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.opt_int(column)?.map(Timestamp::from_micros))
    }

    /// What a JSON text holds; an absent one holds nothing.
    pub(crate) fn json<T: DeserializeOwned + Default>(&self, column: &str) -> Result<T> {
        let text = self.opt_text(column)?;
        text.map_or_else(
            || Ok(T::default()),
            |text| serde_json::from_str(&text).map_err(Error::internal),
        )
    }

    /// A text that is parsed again into what it was written from.
    pub(crate) fn parsed<T: FromStr>(&self, column: &str) -> Result<T> {
        parse(column, &self.text(column)?)
    }

    pub(crate) fn opt_parsed<T: FromStr>(&self, column: &str) -> Result<Option<T>> {
        let text = self.opt_text(column)?;
        text.map(|text| parse(column, &text)).transpose()
    }
}

fn parse<T: FromStr>(column: &str, text: &str) -> Result<T> {
    let malformed = |_| Error::internal(format!("column {column} holds a malformed value"));
    text.parse().map_err(malformed)
}

macro_rules! bound {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for arg in $args {
            query = match arg {
                Arg::Text(value) => query.bind(value),
                Arg::Int(value) => query.bind(value),
                Arg::Bool(value) => query.bind(value),
                Arg::Blob(value) => query.bind(value),
            };
        }
        query
    }};
}
pub(crate) use bound;

/// The connections.
#[derive(Clone)]
pub(crate) enum Db {
    /// One writer, so that every write waits its turn here rather than in SQLite's busy handler.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        clock: Arc<dyn Clock>,
    },
    Postgres(Arc<Postgres>),
}

impl Db {
    /// Begins a transaction that writes.
    pub(crate) async fn write(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite { writer, clock, .. } => Tx::Sqlite(
                writer
                    .begin_with("begin immediate")
                    .await
                    .map_err(meaning)?,
                Arc::clone(clock),
            ),
            Self::Postgres(postgres) => Tx::Postgres(postgres.write().await?),
        })
    }

    /// Fetches what one statement reads, which is one state of the database without a transaction around it.
    pub(crate) async fn fetch_all(&self, sql: String, args: Vec<Arg>) -> Result<Vec<Row>> {
        Ok(match self {
            Self::Sqlite { readers, .. } => {
                let rows = bound!(sql, args).fetch_all(readers).await;
                rows.map_err(meaning)?
                    .into_iter()
                    .map(Row::Sqlite)
                    .collect()
            }
            Self::Postgres(postgres) => {
                let rows = postgres.fetch_all(sql, args).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Begins a transaction that reads one state of the database, whatever is written meanwhile.
    pub(crate) async fn read(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite { readers, clock, .. } => Tx::Sqlite(
                readers
                    .begin_with("begin deferred")
                    .await
                    .map_err(meaning)?,
                Arc::clone(clock),
            ),
            Self::Postgres(postgres) => Tx::Postgres(postgres.read().await?),
        })
    }
}

/// Which engine the catalog runs on, for the few statements that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A transaction of either engine. Dropped, it is rolled back.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>, Arc<dyn Clock>),
    Postgres(PgTx),
}

impl Tx {
    pub(crate) async fn fetch_all(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        args: Vec<Arg>,
    ) -> Result<Vec<Row>> {
        let sql = sql.into();
        Ok(match self {
            Self::Sqlite(tx, _) => {
                let rows = bound!(sql, args).fetch_all(&mut **tx).await;
                rows.map_err(meaning)?
                    .into_iter()
                    .map(Row::Sqlite)
                    .collect()
            }
            Self::Postgres(tx) => {
                let rows = tx.fetch_all(sql, args).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(crate) async fn fetch_optional(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        args: Vec<Arg>,
    ) -> Result<Option<Row>> {
        Ok(self.fetch_all(sql, args).await?.into_iter().next())
    }

    /// Fetches a row and keeps others from changing it until the transaction ends. On SQLite there are no
    /// others: the transaction is the only one that writes.
    pub(crate) async fn fetch_locked(
        &mut self,
        sql: &'static str,
        lock: &'static str,
        args: Vec<Arg>,
    ) -> Result<Option<Row>> {
        let rows = self.fetch_all_locked(sql, lock, args).await?;
        Ok(rows.into_iter().next())
    }

    /// As [`Tx::fetch_locked`], all rows.
    pub(crate) async fn fetch_all_locked(
        &mut self,
        sql: &'static str,
        lock: &'static str,
        args: Vec<Arg>,
    ) -> Result<Vec<Row>> {
        match self {
            Self::Sqlite(..) => self.fetch_all(sql, args).await,
            Self::Postgres(_) => self.fetch_all(format!("{sql} {lock}"), args).await,
        }
    }

    /// Executes a statement and returns how many rows it changed.
    pub(crate) async fn execute(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        args: Vec<Arg>,
    ) -> Result<u64> {
        let sql = sql.into();
        Ok(match self {
            Self::Sqlite(tx, _) => {
                let done = bound!(sql, args).execute(&mut **tx).await;
                done.map_err(meaning)?.rows_affected()
            }
            Self::Postgres(tx) => tx.execute(sql, args).await?,
        })
    }

    /// Executes many statements that take no arguments: a migration.
    pub(crate) async fn script(&mut self, sql: String) -> Result<()> {
        match self {
            Self::Sqlite(tx, _) => {
                let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await;
                done.map(drop).map_err(meaning)
            }
            Self::Postgres(tx) => tx.script(sql).await,
        }
    }

    /// Lets each of its further statements take the time that whole tables take.
    pub(crate) async fn take_time(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(..) => Ok(()),
            Self::Postgres(tx) => tx.take_time().await,
        }
    }

    /// The time by which leases and due times are judged: the database's own where several nodes share
    /// it, else the clock of the one node that there is.
    pub(crate) async fn now(&mut self) -> Result<Timestamp> {
        match self {
            Self::Sqlite(_, clock) => Ok(clock.now()),
            Self::Postgres(tx) => tx.now().await,
        }
    }

    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(..) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    pub(crate) async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx, _) => tx.commit().await.map_err(|error| of_commit(meaning(error))),
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// Two transactions got in each other's way, and this one was rolled back: it may be done again.
#[derive(Debug, thiserror::Error)]
#[error("the transaction lost against another")]
struct Contention(#[source] sqlx::Error);

/// The connection was lost before the transaction was to be committed, so that the database has undone it, or will.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost")]
pub(crate) struct Cut(#[source] pub(crate) sqlx::Error);

/// What a commit ended with: where its answer was lost, it may stand all the same.
pub(crate) fn of_commit(error: Error) -> Error {
    if is_cut(&error) {
        Error::unavailable(error)
    } else {
        error
    }
}

/// Whether the connection was lost before the commit was asked for.
pub(crate) fn is_cut(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Cut>)
}

/// Whether nothing stands of the transaction that ended so, and doing it again may end better.
pub(crate) fn is_undone(error: &Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.is::<Contention>() || source.is::<Cut>())
}

/// Does a transaction again, twice at most, where it lost against another, or lost its connection before its commit.
macro_rules! again_on_contention {
    ($once:expr) => {{
        let mut left = 2;
        loop {
            match $once.await {
                Err(error) if left > 0 && $crate::db::is_undone(&error) => left -= 1,
                other => break other,
            }
        }
    }};
}
pub(crate) use again_on_contention;

/// What an engine's error means to the domain.
pub(crate) fn meaning(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(database) => {
            if database.is_unique_violation() {
                return Error::conflict("Something with this id or name exists already.")
                    .with_context(error);
            }
            if database.is_foreign_key_violation() {
                return Error::conflict(
                    "Something that this refers to is not there or still in use.",
                )
                .with_context(error);
            }
            let code = database.code().unwrap_or_default().into_owned();
            let postgres = database
                .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                .is_some();
            if postgres {
                postgres_meaning(&code, error)
            } else {
                sqlite_meaning(&code, error)
            }
        }
        sqlx::Error::Io(_) => Error::unavailable(Cut(error)),
        sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Error::unavailable(error),
        _ => Error::internal(error),
    }
}

fn storage_full(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::StorageFull, "The storage has no room left.").with_context(error)
}

/// Codes of PostgreSQL's appendix A, "Error Codes".
fn postgres_meaning(code: &str, error: sqlx::Error) -> Error {
    match code {
        "40001" | "40P01" => Error::unavailable(Contention(error)),
        "53100" => storage_full(error),
        "22021" | "22P05" => {
            Error::invalid("A text has a character that can't be stored.").with_context(error)
        }
        // A standby that was promoted elsewhere, a lock or a statement that took too long, a session that idled.
        "25006" | "55P03" | "57014" | "25P03" => Error::unavailable(error),
        // PgBouncer ends clients so whose server has gone.
        _ if code.starts_with("08") || code.starts_with("57P") => Error::unavailable(Cut(error)),
        _ if code.starts_with("53") => Error::unavailable(error),
        _ => Error::internal(error),
    }
}

/// Result codes of SQLite; the primary code is the low byte of an extended one.
fn sqlite_meaning(code: &str, error: sqlx::Error) -> Error {
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(13) => storage_full(error),
        Ok(5 | 6) => Error::unavailable(Contention(error)),
        _ => Error::internal(error),
    }
}
