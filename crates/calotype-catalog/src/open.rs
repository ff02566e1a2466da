//! Opening a catalog: connections, schema, and the listener that carries wake-ups between nodes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calotype_core::id::StoreName;
use calotype_core::ports::Clock;
use calotype_core::{Error, Result};
use sqlx::postgres::{PgListener, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _};
use tokio::sync::Notify;

use crate::db::{Db, Engine, Tx, meaning};
use crate::list::KnownImages;
use crate::migrate::migrate;
use crate::postgres::Postgres;
use crate::relocate::check_at_home;

/// The channel on which PostgreSQL tells every node that a job may be due.
pub(crate) const CHANNEL: &str = "calotype_jobs";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is between this program and a PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pooler {
    /// Nothing, or what gives each client a session of its own.
    #[default]
    None,
    /// A pooler that lends a server for one transaction, as PgBouncer does with `pool_mode = transaction`. What needs
    /// a session goes past it.
    Transaction(DirectUrl),
}

/// The URL of the database itself, where a pooler is in front of it. It may hold a password, and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectUrl(pub String);

impl std::fmt::Debug for DirectUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectUrl(..)")
    }
}

/// How a catalog is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The most connections: readers on SQLite, all on PostgreSQL.
    pub connections: u32,
    /// How long a call waits for a free connection, or for SQLite's file lock.
    pub acquire_timeout: Duration,
    /// After how long PostgreSQL gives a statement up.
    pub statement_timeout: Duration,
    /// What is between this program and a PostgreSQL.
    pub pooler: Pooler,
    /// The store that new blobs go to.
    pub new_blobs: StoreName,
    /// How long answers to idempotent requests are kept (decision D18).
    pub answers_kept: Duration,
    /// How long lines of the audit trail are kept.
    pub audit_kept: Duration,
    /// How long a job is kept after its end.
    pub jobs_kept: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 16,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(15),
            pooler: Pooler::None,
            new_blobs: StoreName::main(),
            answers_kept: DAY,
            audit_kept: 400 * DAY,
            jobs_kept: 90 * DAY,
        }
    }
}

/// The catalog in SQL. It implements [`calotype_core::ports::Catalog`].
pub struct SqlCatalog {
    pub(crate) db: Db,
    pub(crate) bell: Arc<Notify>,
    pub(crate) options: Options,
    pub(crate) known: KnownImages,
    /// Whether something was erased that may still stand in SQLite's journal. After a crash that is not known.
    shredding: AtomicBool,
    listener: Option<tokio::task::JoinHandle<()>>,
}

impl std::fmt::Debug for SqlCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlCatalog").finish_non_exhaustive()
    }
}

impl Drop for SqlCatalog {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

impl SqlCatalog {
    /// Opens the catalog at `url` (`sqlite:PATH`, also as `sqlite://PATH`, or `postgres://...`), makes it where there is
    /// none, and brings its schema up to date.
    ///
    /// # Errors
    /// InvalidRequest where the URL is of neither form; Unavailable where the database is away; Internal
    /// where it was migrated by a newer version of this program that this one can't work with, or the catalog is elsewhere.
    pub async fn open(url: &str, options: Options, clock: Arc<dyn Clock>) -> Result<Self> {
        let bell = Arc::new(Notify::new());
        let db = open_database(url, &options, clock).await?;
        migrate(&db).await?;
        check_at_home(&db).await?;
        let listener = match &db {
            Db::Sqlite { .. } => None,
            Db::Postgres(postgres) => {
                let sessions = postgres.listening();
                Some(tokio::spawn(listen(sessions, Arc::clone(&bell))))
            }
        };
        Ok(Self {
            db,
            bell,
            options,
            known: KnownImages::new(),
            shredding: AtomicBool::new(true),
            listener,
        })
    }

    /// Closes the connections, after the calls that are under way.
    pub async fn close(&self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
        match &self.db {
            Db::Sqlite {
                writer, readers, ..
            } => {
                readers.close().await;
                writer.close().await;
            }
            Db::Postgres(postgres) => postgres.close().await,
        }
    }

    /// The time as this catalog has it: the database's own where several nodes share it, else that of the clock that it was
    /// opened with.
    pub fn clock(&self) -> Arc<dyn Clock> {
        match &self.db {
            Db::Sqlite { clock, .. } => Arc::clone(clock),
            Db::Postgres(postgres) => postgres.clock(),
        }
    }

    /// Notes that something was erased for good.
    pub(crate) fn shred(&self) {
        self.shredding.store(true, Ordering::SeqCst);
    }

    /// Empties SQLite's journal, where pages stand as they were before something was erased. A long read holds it up:
    /// then it is left to the next time.
    pub(crate) async fn truncate_journal(&self) -> Result<()> {
        let Db::Sqlite { writer, .. } = &self.db else {
            return Ok(());
        };
        if !self.shredding.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let sql = "pragma wal_checkpoint(truncate)";
        let busy = sqlx::query(sql).fetch_one(writer).await;
        let busy = busy.and_then(|row| row.try_get::<i64, _>(0));
        if !matches!(busy, Ok(0)) {
            self.shred();
        }
        busy.map(drop).map_err(meaning)
    }

    /// Commits, and then rings the bell here and, on PostgreSQL, on every other node.
    pub(crate) async fn commit_and_ring(&self, mut tx: Tx) -> Result<()> {
        if tx.engine() == Engine::Postgres {
            let sql = "select pg_notify($1, '')";
            tx.fetch_all(sql, vec![crate::db::Arg::text(CHANNEL)])
                .await?;
        }
        tx.commit().await?;
        self.bell.notify_one();
        Ok(())
    }
}

/// Opens the connections, whatever the schema is.
pub(crate) async fn open_database(
    url: &str,
    options: &Options,
    clock: Arc<dyn Clock>,
) -> Result<Db> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        open_sqlite(Path::new(path), options, clock).await
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Db::Postgres(Postgres::open(url, options).await?))
    } else {
        Err(Error::invalid(
            "The catalog's URL must begin with sqlite: or postgres://.",
        ))
    }
}

/// How often and after how long a file is tried again that another connection turns to WAL.
const WAL_ATTEMPTS: u32 = 100;
const WAL_PAUSE: Duration = Duration::from_millis(20);

async fn open_sqlite(path: &Path, options: &Options, clock: Arc<dyn Clock>) -> Result<Db> {
    make_private(path)?;
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.acquire_timeout)
        .statement_cache_capacity(256)
        .pragma("temp_store", "memory")
        .pragma("cache_size", "-8192")
        // What is deleted is overwritten: it may be a key.
        .pragma("secure_delete", "on")
        .pragma("journal_size_limit", "67108864");
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // SQLite itself rolls a transaction back that meets a full disk. sqlx then fails to do so, and
            // would refuse every later transaction on the connection.
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
    };
    // SQLite refuses at once, whatever the busy timeout, where two first connections turn a new file to WAL.
    let mut attempts = 0;
    let writer = loop {
        let opened = pool(1).connect_with(connect.clone()).await;
        match opened.map_err(meaning) {
            Err(error) if error.is_transient() && attempts < WAL_ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(WAL_PAUSE).await;
            }
            opened => break opened?,
        }
    };
    // Each reader is a thread that computes. More of them than the processors can run only wait for each other,
    // and make every answer late instead of the last one.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let most = u32::try_from(2 * processors).unwrap_or(u32::MAX);
    let readers = pool(options.connections.clamp(1, most))
        .connect_lazy_with(connect.pragma("query_only", "on"));
    Ok(Db::Sqlite {
        writer,
        readers,
        clock,
    })
}

/// Makes the database's file readable by its owner alone, before SQLite would make it readable by all.
/// SQLite gives its journals the same mode.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::internal)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(Error::internal)
}

/// Rings the bell whenever another node says that a job may be due, and whenever the connection was lost
/// in between: what was said meanwhile is not known.
async fn listen(pool: PgPool, bell: Arc<Notify>) {
    let mut pause = Duration::from_millis(100);
    loop {
        match listen_once(&pool, &bell, &mut pause).await {
            Ok(()) | Err(sqlx::Error::PoolClosed) => return,
            Err(error) => tracing::warn!(
                error = %error,
                retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the catalog's notifications were lost, listening again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

async fn listen_once(
    pool: &PgPool,
    bell: &Notify,
    pause: &mut Duration,
) -> std::result::Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    *pause = Duration::from_millis(100);
    bell.notify_one();
    loop {
        // `None` is a lost connection that was made anew.
        listener.try_recv().await?;
        bell.notify_one();
    }
}
