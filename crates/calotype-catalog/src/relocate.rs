//! Moving a catalog out of SQLite into PostgreSQL. It ends while no service runs on it; most of it may be done before ([`follow`]).
//!
//! # Consistency
//! Each table is copied in the order of its primary key, some rows in a transaction, together with how far it has got. In
//! the end every row of both is read again and goes into a digest for each table; the catalog has moved only where
//! all are equal. Rows that were changed between two tries are found so, and then everything is copied again.
//!
//! # Crash consistency
//! What is killed goes on where it was when it is called again. Nobody can open a catalog that has arrived in part, nor the one
//! that it was copied from once it is marked as left. It is marked before the other is opened to all: at no instant are there two
//! catalogs that a store's blobs could be collected by.

mod follow;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use calotype_core::ports::Clock;
use calotype_core::{Error, ErrorKind, Result};

use crate::db::{Arg, Db, Row, Tx};
use crate::migrate::migrate;
use crate::open::{Options, open_database};
use table::Table;

pub use follow::{follow, stop_following};

/// The tables, each after those that it refers to. What belongs to a database rather than to the catalog is not among
/// them.
pub(crate) const TABLES: [&str; 27] = [
    "domains",
    "projects",
    "users",
    "roles",
    "assignments",
    "access_keys",
    "tokens",
    "enterprise_projects",
    "enterprise_assignments",
    "blobs",
    "blob_copies",
    "images",
    "image_properties",
    "image_tags",
    "image_members",
    "burnt_image_ids",
    "jobs",
    "project_usage",
    "project_limits",
    "idempotent_answers",
    "audit_events",
    "catalog_facts",
    "root_keys",
    "master_keys",
    "master_key_versions",
    "key_grants",
    "key_tags",
];

/// A move.
pub struct Relocation<'a> {
    /// SQLite's file.
    pub from: &'a Path,
    /// The URL of the PostgreSQL: of a database that nothing has used.
    pub to: &'a str,
    /// How both are opened.
    pub options: Options,
    /// The clock, for what SQLite is told.
    pub clock: Arc<dyn Clock>,
    /// How many rows are copied in one transaction.
    pub rows_at_once: u32,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Rows are copied.
    Copied(TableProgress),
    /// Rows were read again, and compared.
    Compared(TableProgress),
    /// What was copied is not what is there any more: all is copied again.
    Anew,
}

/// How far a table has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableProgress {
    /// The table.
    pub table: &'static str,
    /// Rows done.
    pub done: u64,
    /// Rows that there are.
    pub rows: u64,
}

/// A table that has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedTable {
    /// Its name.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// The digest of all of them, the same on both sides.
    pub sha256: String,
}

/// Moves a catalog. The caller knows that no service runs on it, and that none is started on the other database.
///
/// # Errors
/// NotFound where there is no such file; InvalidRequest where the URL is not a PostgreSQL's; Conflict where the database has a catalog
/// already, or another one is arriving there, or this one has left for elsewhere; Internal where the copy differs even after
/// everything was copied again; what `progress` returns, which ends it. Called again it goes on.
pub async fn relocate(
    order: Relocation<'_>,
    mut progress: impl FnMut(Progress) -> Result<()> + Send,
) -> Result<Vec<MovedTable>> {
    let (from, to) = open_both(&order).await?;
    let id = begin(&from, &to).await?;
    let tables = tables_of(&to).await?;
    let moved = match attempt(&tables, &from, &to, &order, &mut progress).await {
        Ok(moved) => moved,
        Err(Attempt::Stale(why)) => {
            tracing::warn!(why, "all is copied again");
            progress(Progress::Anew)?;
            let mut tx = to.write().await?;
            empty(&mut tx).await?;
            tx.commit().await?;
            let repeated = attempt(&tables, &from, &to, &order, &mut progress).await;
            repeated.map_err(Attempt::into_error)?
        }
        Err(other) => return Err(other.into_error()),
    };
    leave(&from, &id).await?;
    arrive(&to).await?;
    Ok(moved)
}

/// Why an attempt did not end well.
enum Attempt {
    /// What was copied before is not what is there any more. Says what shows it.
    Stale(String),
    Failed(Error),
}

impl Attempt {
    fn into_error(self) -> Error {
        match self {
            Self::Stale(why) => Error::internal(why),
            Self::Failed(error) => error,
        }
    }
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Copies what is left to be copied, and compares everything.
async fn attempt(
    tables: &[Table],
    from: &Db,
    to: &Db,
    order: &Relocation<'_>,
    progress: &mut (impl FnMut(Progress) -> Result<()> + Send),
) -> std::result::Result<Vec<MovedTable>, Attempt> {
    let mut state = from.read().await?;
    for table in tables {
        let copied = copy(table, &mut state, to, order.rows_at_once, None, progress).await;
        copied.map_err(|error| match error.kind() {
            // A row refers to one that was not there when its table was copied.
            ErrorKind::Conflict => Attempt::Stale(error.chain().to_string()),
            _ => Attempt::Failed(error),
        })?;
    }
    drop(state);
    let mut moved = Vec::new();
    for table in tables {
        let (theirs, ours) = tokio::try_join!(table.digest(from), table.digest(to))?;
        if theirs != ours {
            return Err(Attempt::Stale(format!(
                "the copy of table {} differs from what it was copied from",
                table.name
            )));
        }
        let (rows, sha256) = ours;
        progress(Progress::Compared(TableProgress {
            table: table.name,
            done: rows,
            rows,
        }))?;
        moved.push(MovedTable {
            table: table.name,
            rows,
            sha256,
        });
    }
    Ok(moved)
}

/// Whether a catalog may be worked on here.
///
/// # Errors
/// Where it is on its way to this database, or has left it.
pub(crate) async fn check_at_home(db: &Db) -> Result<()> {
    let mut tx = db.read().await?;
    match state_of(&mut tx).await? {
        None => Ok(()),
        Some((state, _)) if state == LEFT => Err(Error::internal(
            "the catalog has moved to PostgreSQL and is served from there: name that in [catalog] url",
        )),
        Some(_) => Err(Error::internal(
            "the catalog has not wholly arrived here: run `calotype migrate-catalog` again, or empty the database",
        )),
    }
}

const ARRIVING: &str = "arriving";
const LEFT: &str = "left";

async fn tables_of(to: &Db) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for name in TABLES {
        tables.push(Table::of(to, name).await?);
    }
    Ok(tables)
}

async fn open_both(order: &Relocation<'_>) -> Result<(Db, Db)> {
    if !order.to.starts_with("postgres") {
        return Err(Error::invalid("A catalog moves to a PostgreSQL only."));
    }
    let from = open_source(order).await?;
    let to = open_database(order.to, &order.options, Arc::clone(&order.clock)).await?;
    migrate(&from).await?;
    migrate(&to).await?;
    Ok((from, to))
}

async fn open_source(order: &Relocation<'_>) -> Result<Db> {
    if !order.from.is_file() {
        return Err(Error::not_found(format!(
            "There is no catalog at {}.",
            order.from.display()
        )));
    }
    let sqlite = Options {
        pooler: crate::open::Pooler::None,
        ..order.options.clone()
    };
    let url = format!("sqlite://{}", order.from.display());
    open_database(&url, &sqlite, Arc::clone(&order.clock)).await
}

/// Marks the catalog as arriving, or finds it marked so. Returns its id.
async fn begin(from: &Db, to: &Db) -> Result<String> {
    let mut tx = from.read().await?;
    let left = state_of(&mut tx).await?.is_some();
    let Some(id) = id_of(&mut tx).await? else {
        return Err(Error::conflict(
            "No service has ever run on this catalog: there is nothing to move.",
        ));
    };
    drop(tx);
    let mut tx = to.write().await?;
    match state_of(&mut tx).await? {
        Some((_, arriving)) if arriving == id => return Ok(id),
        Some(_) => return Err(Error::conflict("Another catalog is arriving there.")),
        None if left && id_of(&mut tx).await?.as_ref() == Some(&id) => {
            return Err(Error::conflict("The catalog has moved there already."));
        }
        None if left => {
            return Err(Error::conflict(
                "The catalog has left for elsewhere already.",
            ));
        }
        None => {}
    }
    for table in [
        "catalog_facts",
        "users",
        "images",
        "jobs",
        "blobs",
        "blob_copies",
        "audit_events",
    ] {
        let sql = format!("select 1 from {table} limit 1");
        if tx.fetch_optional(sql, Vec::new()).await?.is_some() {
            return Err(Error::conflict("The database has a catalog already."));
        }
    }
    empty(&mut tx).await?;
    let sql = "insert into catalog_moves (state, catalog) values ($1, $2)";
    tx.execute(sql, vec![Arg::text(ARRIVING), Arg::text(&id)])
        .await?;
    tx.commit().await?;
    Ok(id)
}

async fn state_of(tx: &mut Tx) -> Result<Option<(String, String)>> {
    let sql = "select state, catalog from catalog_moves limit 1";
    let row = tx.fetch_optional(sql, Vec::new()).await?;
    let state = row.map(|row| Ok((row.text("state")?, row.text("catalog")?)));
    state.transpose()
}

async fn id_of(tx: &mut Tx) -> Result<Option<String>> {
    let sql = "select value from catalog_facts where name = 'id'";
    let row = tx.fetch_optional(sql, Vec::new()).await?;
    row.map(|row| row.text("value")).transpose()
}

/// Removes what has been copied, and what the schema itself has put there.
async fn empty(tx: &mut Tx) -> Result<()> {
    tx.script(format!("truncate {}, catalog_copies", TABLES.join(", ")))
        .await
}

/// That no other process has ended the move meanwhile.
async fn check_arriving(tx: &mut Tx) -> Result<()> {
    match state_of(tx).await? {
        Some((state, _)) if state == ARRIVING => Ok(()),
        _ => Err(Error::internal(
            "the move has been ended by another process",
        )),
    }
}

/// Copies what is left to be copied of a table, until `end` at the most. Returns whether that was all.
async fn copy(
    table: &Table,
    state: &mut Tx,
    to: &Db,
    rows_at_once: u32,
    end: Option<Instant>,
    progress: &mut (impl FnMut(Progress) -> Result<()> + Send),
) -> Result<bool> {
    let mut tx = to.read().await?;
    let sql = "select after, copied, done from catalog_copies where name = $1";
    let row = tx.fetch_optional(sql, vec![Arg::text(table.name)]).await?;
    drop(tx);
    let (mut after, mut done) = match row {
        Some(row) if row.bool("done")? => return Ok(true),
        Some(row) => (row.json("after")?, row.count("copied")?),
        None => (None, 0),
    };
    let rows = table.count(state).await?;
    loop {
        let batch = table.read(state, after.as_ref(), rows_at_once).await?;
        done += batch.len() as u64;
        let finished = batch.is_empty();
        let mut tx = to.write().await?;
        check_arriving(&mut tx).await?;
        if let Some(last) = batch.last() {
            after = Some(table.key_of(last)?);
            table.write(&mut tx, &batch).await?;
        }
        let sql = "insert into catalog_copies (name, after, copied, done) values ($1, $2, $3, $4) \
                   on conflict (name) do update set after = $2, copied = $3, done = $4";
        let key = after.as_ref().map(serde_json::to_string).transpose();
        let args = vec![
            Arg::text(table.name),
            Arg::opt_text(key.map_err(Error::internal)?),
            Arg::count(done),
            finished.into(),
        ];
        tx.execute(sql, args).await?;
        tx.commit().await?;
        progress(Progress::Copied(TableProgress {
            table: table.name,
            done,
            rows: rows.max(done),
        }))?;
        if finished {
            return Ok(true);
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(false);
        }
    }
}

async fn leave(from: &Db, id: &str) -> Result<()> {
    let mut tx = from.write().await?;
    let sql = "insert into catalog_moves (state, catalog) values ($1, $2) on conflict do nothing";
    tx.execute(sql, vec![Arg::text(LEFT), Arg::text(id)])
        .await?;
    follow::end_noting(&mut tx).await?;
    tx.commit().await
}

async fn arrive(to: &Db) -> Result<()> {
    let mut tx = to.write().await?;
    // Lines that are written from now on come after those that came along.
    let sql = "select setval(pg_get_serial_sequence('audit_events', 'seq'), \
               (select coalesce(max(seq), 0) + 1 from audit_events), false) as next";
    let _: Vec<Row> = tx.fetch_all(sql, Vec::new()).await?;
    follow::check_references_late(&mut tx, false).await?;
    // Queries are planned by what is known of the tables, and nothing is of what has just come.
    tx.script("set local statement_timeout = 0; analyze".to_owned())
        .await?;
    tx.script("truncate catalog_moves, catalog_copies".to_owned())
        .await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::SqlCatalog;
    use crate::clock::Epoch;

    /// What says something of the database itself.
    const OWN: [&str; 4] = [
        "schema_migrations",
        "leases",
        "catalog_moves",
        "catalog_copies",
    ];

    #[tokio::test]
    async fn every_table_moves_and_after_those_that_it_refers_to() {
        let place = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", place.path().join("catalog.db").display());
        let catalog = SqlCatalog::open(&url, Options::default(), Arc::new(Epoch)).await;
        let catalog = catalog.unwrap();
        let mut tx = catalog.db.read().await.unwrap();
        let sql = "select name as n from sqlite_schema where type = 'table' \
                   and name not like 'sqlite_%'";
        let rows = tx.fetch_all(sql, Vec::new()).await.unwrap();
        let there: BTreeSet<String> = rows.iter().map(|row| row.text("n").unwrap()).collect();
        let known = TABLES.into_iter().chain(OWN);
        assert_eq!(there, known.map(str::to_owned).collect());
        for (place, table) in TABLES.into_iter().enumerate() {
            let sql = format!("pragma foreign_key_list({table})");
            for row in tx.fetch_all(sql, Vec::new()).await.unwrap() {
                let other = row.text("table").unwrap();
                assert!(TABLES[..place].contains(&other.as_str()), "{table} {other}");
            }
        }
    }
}
