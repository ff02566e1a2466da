//! Looking at a catalog's database without changing anything in it.

use std::path::Path;
use std::sync::Arc;

use calotype_core::Result;
use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;

use crate::db::{Db, Tx};
use crate::migrate::{FIRST_WITH_COMPATIBILITY, newest};
use crate::open::{Options, open_database};
use crate::relocate::check_at_home;

/// The oldest PostgreSQL that the catalog can be in.
pub const OLDEST_POSTGRES: i64 = 15;

/// What a database is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The engine and its version.
    pub engine: String,
    /// Whether it is older than [`OLDEST_POSTGRES`].
    pub outdated: bool,
    /// The version of the schema; 0 where there is none.
    pub schema: i64,
    /// The newest version that this program knows.
    pub known: i64,
    /// Whether this program can work with the schema, after its own steps where they are missing.
    pub usable: bool,
    /// Why nobody may work on the catalog here, where that is so.
    pub away: Option<String>,
    /// The database's time.
    pub time: Timestamp,
    /// The time of the given clock when it was that.
    pub asked: Timestamp,
    /// What of the database's settings loses what was acknowledged, or keeps the service from working.
    pub faults: Vec<String>,
}

/// Looks at the database at a URL; none where there is no file of that name yet.
///
/// # Errors
/// As [`crate::SqlCatalog::open`].
pub async fn examine(
    url: &str,
    options: &Options,
    clock: Arc<dyn Clock>,
) -> Result<Option<Examined>> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !Path::new(path).is_file() {
            return Ok(None);
        }
    }
    let db = open_database(url, options, Arc::clone(&clock)).await?;
    let mut tx = db.read().await?;
    let time = tx.now().await?;
    let asked = clock.now();
    let (engine, outdated, faults) = match &db {
        Db::Sqlite { .. } => (
            text(&mut tx, "select 'SQLite ' || sqlite_version() as t").await?,
            false,
            Vec::new(),
        ),
        Db::Postgres(postgres) => {
            // Where the notifications come from.
            postgres.session().await?;
            let version = "select 'PostgreSQL ' || current_setting('server_version') as t";
            let number_of = "select cast(current_setting('server_version_num') as integer) as n";
            (
                text(&mut tx, version).await?,
                number(&mut tx, number_of).await? < OLDEST_POSTGRES * 10_000,
                faults(&mut tx).await?,
            )
        }
    };
    let schema = version(&mut tx, &db).await?;
    let known = newest();
    let oldest = if schema > known && known >= FIRST_WITH_COMPATIBILITY {
        let sql = "select coalesce(compatible_from, version) as n from schema_migrations \
                   order by version desc limit 1";
        number(&mut tx, sql).await?
    } else {
        schema
    };
    drop(tx);
    let away = if schema >= FIRST_WITH_COMPATIBILITY {
        let home = check_at_home(&db).await;
        home.err().map(|error| error.chain().to_string())
    } else {
        None
    };
    Ok(Some(Examined {
        engine,
        outdated,
        schema,
        known,
        usable: oldest <= known,
        away,
        time,
        asked,
        faults,
    }))
}

/// The version of a database's schema; 0 where there is none.
pub(crate) async fn version(tx: &mut Tx, db: &Db) -> Result<i64> {
    let there = match db {
        Db::Sqlite { .. } => {
            "select count(*) as n from sqlite_schema where name = 'schema_migrations'"
        }
        Db::Postgres(_) => {
            "select count(*) as n from information_schema.tables \
             where table_schema = current_schema() and table_name = 'schema_migrations'"
        }
    };
    if number(tx, there).await? == 0 {
        return Ok(0);
    }
    let sql = "select coalesce(max(version), 0) as n from schema_migrations";
    number(tx, sql).await
}

/// What is amiss with a PostgreSQL.
async fn faults(tx: &mut Tx) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (sql, fault) in [
        (
            "select case when pg_is_in_recovery() then 1 else 0 end as n",
            "it is a standby, which takes no changes",
        ),
        (
            "select case when has_schema_privilege(current_schema(), 'create') then 0 else 1 end as n",
            "the user may not make tables in the schema",
        ),
        (
            "select case when current_setting('fsync') = 'on' then 0 else 1 end as n",
            "fsync is off: a crash of its machine loses the catalog",
        ),
        (
            "select case when current_setting('synchronous_commit') in ('off') then 1 else 0 end as n",
            "synchronous_commit is off: a crash loses what was acknowledged",
        ),
    ] {
        if number(tx, sql).await? != 0 {
            faults.push(fault.to_owned());
        }
    }
    Ok(faults)
}

async fn number(tx: &mut Tx, sql: &'static str) -> Result<i64> {
    // PostgreSQL's constants are of a narrower type.
    let sql = format!("select cast(x.n as bigint) as n from ({sql}) as x");
    let row = tx.fetch_optional(sql, Vec::new()).await?;
    row.map_or(Ok(0), |row| row.int("n"))
}

async fn text(tx: &mut Tx, sql: &'static str) -> Result<String> {
    let row = tx.fetch_optional(sql, Vec::new()).await?;
    row.map_or_else(|| Ok(String::new()), |row| row.text("t"))
}
