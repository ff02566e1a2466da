//! PostgreSQL: its connections, and its transactions.
//!
//! # Fail-over
//! A connection that was lost while it waited is found out when it is taken, and replaced; while the server refuses
//! connections, a call waits for as long as it would for a free one. A transaction whose connection is lost at its first
//! statement is begun again on a fresh connection, once: the database has undone it, and it has told nothing yet that
//! could change. Later losses before the commit are told as [`crate::db::Cut`]; the loss of a commit's answer is told as a fault
//! that nobody does again, for the commit may stand.
//!
//! # Poolers
//! A pooler that lends a server for one transaction (PgBouncer's `pool_mode = transaction`) forgets what is said outside
//! of one. Then nothing is kept in a session: every statement is in a transaction, none has a name, and the limits are set with
//! each beginning. Notifications and migrations need sessions, and go past the pooler.

use std::borrow::Cow;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Transaction};

use crate::clock::DatabaseClock;
use crate::db::{Arg, bound, is_cut, meaning, of_commit};
use crate::open::{Options, Pooler};

/// How long a transaction may wait for this program between two statements.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// How long an answer may be on its way after PostgreSQL would have given the statement up.
const WAY: Duration = Duration::from_secs(5);

/// How long a statement may take that reads whole tables. Ten million rows take minutes.
const WHOLE_TABLES: Duration = Duration::from_hours(1);

/// How many processes of the database's may help with one: as many as PostgreSQL lets any statement have by itself.
const HELPERS: u32 = 2;

const NOW: &str = "select cast(extract(epoch from clock_timestamp()) * 1000000 as bigint) as now";

/// The connections to a PostgreSQL.
pub(crate) struct Postgres {
    pool: PgPool,
    /// For what needs a session of its own: not through a pooler.
    sessions: PgConnectOptions,
    clock: Arc<DatabaseClock>,
    /// Whether statements are kept prepared in the session.
    prepares: bool,
    /// How long an answer is waited for.
    patience: Duration,
    begin_write: String,
    begin_read: String,
}

impl Postgres {
    /// Opens connections, and reads the database's clock.
    ///
    /// # Errors
    /// InvalidRequest where a URL can't be understood; Unavailable where the database is away.
    pub(crate) async fn open(url: &str, options: &Options) -> Result<Arc<Self>> {
        let direct = |url: &str| connect(url).map(|connect| in_sessions(connect, options));
        let (connect, sessions, limits) = match &options.pooler {
            Pooler::None => (direct(url)?, direct(url)?, String::new()),
            Pooler::Transaction(past) => {
                // What a pooler does not know when a client begins, it refuses.
                let pooled = connect(url)?.extra_float_digits(None);
                let pooled = pooled.statement_cache_capacity(0);
                (pooled, direct(&past.0)?, limits_of_a_transaction(options))
            }
        };
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(2))
            .acquire_timeout(options.acquire_timeout)
            .connect_with(connect)
            .await
            .map_err(meaning)?;
        let postgres = Self {
            pool,
            sessions,
            clock: Arc::new(DatabaseClock::new()),
            prepares: options.pooler == Pooler::None,
            patience: options.statement_timeout + WAY,
            begin_write: format!("begin{limits}"),
            begin_read: format!("begin isolation level repeatable read read only{limits}"),
        };
        let postgres = Arc::new(postgres);
        postgres.read().await?.now().await?;
        Ok(postgres)
    }

    /// The database's clock.
    pub(crate) fn clock(&self) -> Arc<DatabaseClock> {
        Arc::clone(&self.clock)
    }

    /// A connection of its own, past any pooler.
    pub(crate) async fn session(&self) -> Result<PgConnection> {
        PgConnection::connect_with(&self.sessions)
            .await
            .map_err(meaning)
    }

    /// One connection for notifications, made when it is used, and anew when it was lost.
    pub(crate) fn listening(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(self.sessions.clone())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a transaction that writes.
    pub(crate) async fn write(self: &Arc<Self>) -> Result<PgTx> {
        PgTx::begin(self, false).await
    }

    /// Begins a transaction that reads one state of the database.
    pub(crate) async fn read(self: &Arc<Self>) -> Result<PgTx> {
        PgTx::begin(self, true).await
    }

    /// Fetches what one statement reads.
    pub(crate) async fn fetch_all(
        self: &Arc<Self>,
        sql: String,
        args: Vec<Arg>,
    ) -> Result<Vec<PgRow>> {
        if !self.prepares {
            return self.read().await?.fetch_all(sql.into(), args).await;
        }
        match self.fetch_once(sql.clone(), args.clone()).await {
            Err(error) if is_cut(&error) => self.fetch_once(sql, args).await,
            fetched => fetched,
        }
    }

    async fn fetch_once(&self, sql: String, args: Vec<Arg>) -> Result<Vec<PgRow>> {
        answered(self.patience, bound!(sql, args).fetch_all(&self.pool)).await
    }

    async fn begin(&self, reads: bool) -> Result<Transaction<'static, sqlx::Postgres>> {
        let begin = match reads {
            true => self.begin_read.clone(),
            false => self.begin_write.clone(),
        };
        // A task of its own, which goes on where its caller goes away: sqlx knows of a transaction only once its begin was
        // answered, and would give the connection to the next with the transaction open.
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(begin)).await });
        // The pool has a limit of its own, for a free connection.
        let patience = self.patience + self.pool.options().get_acquire_timeout();
        match tokio::time::timeout(patience, begun).await {
            Ok(Ok(begun)) => begun.map_err(meaning),
            Ok(Err(ended)) => Err(Error::internal(ended)),
            Err(_) => Err(Error::unavailable(Silent)),
        }
    }
}

/// What the database answers within this time.
///
/// # Errors
/// Unavailable where it says nothing at all, though PostgreSQL itself would have given up by now: the way to it
/// is cut, and nothing says so.
async fn answered<T>(patience: Duration, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(answer) => answer.map_err(meaning),
        Err(_) => Err(Error::unavailable(Silent)),
    }
}

/// A transaction of PostgreSQL's. Dropped, it is rolled back.
pub(crate) struct PgTx {
    /// None where it was lost and could not be begun again.
    tx: Option<Transaction<'static, sqlx::Postgres>>,
    postgres: Arc<Postgres>,
    reads: bool,
    patience: Duration,
    begun_again: bool,
    /// Whether it has told anything but the time.
    told: bool,
}

impl PgTx {
    async fn begin(postgres: &Arc<Postgres>, reads: bool) -> Result<Self> {
        let (tx, begun_again) = match postgres.begin(reads).await {
            Err(error) if is_cut(&error) => (postgres.begin(reads).await?, true),
            begun => (begun?, false),
        };
        Ok(Self {
            tx: Some(tx),
            postgres: Arc::clone(postgres),
            reads,
            patience: postgres.patience,
            begun_again,
            told: false,
        })
    }

    /// Whether it may be begun again where its connection is lost.
    const fn is_fresh(&self) -> bool {
        !self.begun_again && !self.told
    }

    /// Begins again after this fault, where it is the connection's loss. Nobody notices in a fresh transaction.
    async fn begin_again(&mut self, error: Error) -> Result<()> {
        if !is_cut(&error) {
            return Err(error);
        }
        tracing::debug!(error.chain = %error.chain(), "a transaction is begun again");
        self.begun_again = true;
        // The lost connection's place first: where all are lost at once, there is no other.
        self.tx = None;
        self.tx = Some(self.postgres.begin(self.reads).await?);
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut PgConnection> {
        let lost = || Error::unavailable(Lost);
        Ok(&mut **self.tx.as_mut().ok_or_else(lost)?)
    }

    pub(crate) async fn fetch_all(
        &mut self,
        sql: Cow<'static, str>,
        args: Vec<Arg>,
    ) -> Result<Vec<PgRow>> {
        let repeat = self.is_fresh().then(|| (sql.clone(), args.clone()));
        let fetched = self.fetch_once(sql, args).await;
        let fetched = match (fetched, repeat) {
            (Err(error), Some((sql, args))) => {
                self.begin_again(error).await?;
                self.fetch_once(sql, args).await
            }
            (fetched, _) => fetched,
        };
        self.told = true;
        fetched
    }

    async fn fetch_once(&mut self, sql: Cow<'static, str>, args: Vec<Arg>) -> Result<Vec<PgRow>> {
        let query = bound!(sql, args).persistent(self.postgres.prepares);
        let patience = self.patience;
        answered(patience, query.fetch_all(self.connection()?)).await
    }

    pub(crate) async fn execute(&mut self, sql: Cow<'static, str>, args: Vec<Arg>) -> Result<u64> {
        let repeat = self.is_fresh().then(|| (sql.clone(), args.clone()));
        let done = self.execute_once(sql, args).await;
        let done = match (done, repeat) {
            (Err(error), Some((sql, args))) => {
                self.begin_again(error).await?;
                self.execute_once(sql, args).await
            }
            (done, _) => done,
        };
        self.told = true;
        done
    }

    async fn execute_once(&mut self, sql: Cow<'static, str>, args: Vec<Arg>) -> Result<u64> {
        let query = bound!(sql, args).persistent(self.postgres.prepares);
        let patience = self.patience;
        let done = answered(patience, query.execute(self.connection()?)).await?;
        Ok(done.rows_affected())
    }

    /// Executes many statements that take no arguments.
    pub(crate) async fn script(&mut self, sql: String) -> Result<()> {
        self.told = true;
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        let done = sql.execute(self.connection()?).await;
        done.map(drop).map_err(meaning)
    }

    /// Lets each of its further statements read whole tables, and take the time and the processes that this takes.
    pub(crate) async fn take_time(&mut self) -> Result<()> {
        let limit = WHOLE_TABLES.as_millis();
        let limits = format!(
            "set local statement_timeout = {limit}; set local enable_seqscan = on; \
             set local max_parallel_workers_per_gather = {HELPERS}"
        );
        self.script(limits).await?;
        self.patience = WHOLE_TABLES + WAY;
        Ok(())
    }

    /// The database's time.
    pub(crate) async fn now(&mut self) -> Result<Timestamp> {
        let told = self.told;
        let asked = Instant::now();
        let rows = self.fetch_all(NOW.into(), Vec::new()).await?;
        self.told = told;
        let row = rows.first();
        let row = row.ok_or_else(|| Error::internal("the database told no time"))?;
        let told = Timestamp::from_micros(row.try_get("now").map_err(Error::internal)?);
        self.postgres.clock.set(asked, told);
        Ok(told)
    }

    pub(crate) async fn commit(self) -> Result<()> {
        let Some(tx) = self.tx else {
            return Err(Error::unavailable(Lost));
        };
        let committed = answered(self.patience, tx.commit()).await;
        committed.map_err(of_commit)
    }
}

/// The database is silent for longer than it would take over a statement.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
struct Silent;

/// The transaction's connection was lost, and no other could be had.
#[derive(Debug, thiserror::Error)]
#[error("the transaction's connection was lost")]
struct Lost;

fn connect(url: &str) -> Result<PgConnectOptions> {
    let invalid = |error: sqlx::Error| {
        Error::invalid("The catalog's URL can't be understood.").with_context(error)
    };
    let connect = PgConnectOptions::from_str(url).map_err(invalid)?;
    Ok(connect.application_name("calotype"))
}

/// What holds for each statement but those that read whole tables ([`PgTx::take_time`]).
fn limits(options: &Options) -> [(&'static str, String); 5] {
    let millis = |limit: Duration| format!("{}ms", limit.as_millis());
    [
        ("statement_timeout", millis(options.statement_timeout)),
        (
            "idle_in_transaction_session_timeout",
            millis(IDLE_IN_TRANSACTION),
        ),
        // Each has an index to begin at. By what is expected of values on average a whole table can look cheaper, the more so where
        // several processes share it; and to start these, or to compile, takes longer than a page.
        ("enable_seqscan", "off".to_owned()),
        ("max_parallel_workers_per_gather", "0".to_owned()),
        ("jit", "off".to_owned()),
    ]
}

/// A connection that keeps what is said in it once: limits, and statements.
fn in_sessions(connect: PgConnectOptions, options: &Options) -> PgConnectOptions {
    let zone = [("timezone", "UTC".to_owned())];
    let settings = limits(options).into_iter().chain(zone);
    connect.statement_cache_capacity(256).options(settings)
}

fn limits_of_a_transaction(options: &Options) -> String {
    let limits = limits(options).map(|(name, value)| format!("; set local {name} = '{value}'"));
    limits.concat()
}

#[cfg(test)]
mod tests;
