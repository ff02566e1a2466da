//! Copying a catalog that is worked on meanwhile.
//!
//! Triggers in SQLite note the key of each row that is written, in the transaction that writes it. A round takes one state of
//! the database, brings what has been copied to it by the keys that were noted before, and copies on from it. So
//! whatever has been copied is always one state, that of the last round, and no row that was written since is forgotten.
//!
//! # Crash consistency
//! Notes are removed after what they are about is copied, and to copy by them twice does no harm. They outlive whoever follows, and
//! the service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calotype_core::{Error, ErrorKind, Result};

use super::table::{Key, Table};
use super::{Relocation, TableProgress, begin, copy, empty, open_both, open_source, tables_of};
use crate::db::{Arg, Db, Tx};
use crate::migrate::newest;

/// The table of notes.
const CHANGES: &str = "catalog_changes";

/// How long a round waits after one that had nothing to do.
const PAUSE: Duration = Duration::from_millis(200);

/// Copies a catalog while a service works on it, and goes on copying what is changed, until `stopped` says that none works on it
/// any more. It is told how many rows had changed since it was asked before. [`super::relocate`] does the rest.
///
/// # Errors
/// As [`super::relocate`]; Conflict where the service is of another version; what `stopped` returns, which ends it.
pub async fn follow(
    order: &Relocation<'_>,
    mut progress: impl FnMut(TableProgress) -> Result<()> + Send,
    mut stopped: impl FnMut(u64) -> Result<bool> + Send,
) -> Result<()> {
    check_version(order).await?;
    let (from, to) = open_both(order).await?;
    begin(&from, &to).await?;
    let tables = tables_of(&to).await?;
    begin_noting(&from, &to, &tables).await?;
    loop {
        let changed = round(&from, &to, &tables, order.rows_at_once, &mut progress).await?;
        if stopped(changed)? {
            // What was written up to the stop.
            round(&from, &to, &tables, order.rows_at_once, &mut progress).await?;
            return Ok(());
        }
        if changed == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Takes what following needs out of a catalog again: the service stays where it is.
///
/// # Errors
/// NotFound where there is no such file.
pub async fn stop_following(order: &Relocation<'_>) -> Result<()> {
    let from = open_source(order).await?;
    let mut tx = from.write().await?;
    end_noting(&mut tx).await?;
    tx.commit().await
}

/// The service's schema is not migrated under it.
async fn check_version(order: &Relocation<'_>) -> Result<()> {
    let from = open_source(order).await?;
    let sql = "select coalesce(max(version), 0) as version from schema_migrations";
    let rows = from.fetch_all(sql.to_owned(), Vec::new()).await?;
    let version = rows.first().map_or(Ok(0), |row| row.int("version"))?;
    if version == newest() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "The catalog has schema version {version}, and this program's is {}: follow it with the program that serves it.",
        newest()
    )))
}

async fn is_noting(tx: &mut Tx) -> Result<bool> {
    let sql = "select 1 from sqlite_schema where type = 'table' and name = $1";
    let found = tx.fetch_optional(sql, vec![Arg::text(CHANGES)]).await?;
    Ok(found.is_some())
}

/// From here on each row that is written is noted. What was copied before that is copied again.
async fn begin_noting(from: &Db, to: &Db, tables: &[Table]) -> Result<()> {
    let mut tx = from.write().await?;
    if is_noting(&mut tx).await? {
        return Ok(());
    }
    let mut anew = to.write().await?;
    empty(&mut anew).await?;
    check_references_late(&mut anew, true).await?;
    anew.commit().await?;
    tx.script(format!(
        "create table {CHANGES} (seq integer primary key autoincrement, name text not null, key text not null)"
    ))
    .await?;
    for table in tables {
        tx.script(triggers(table)).await?;
    }
    tx.commit().await
}

/// Whether what rows refer to is looked for at the end of a transaction only, where that says so.
pub(super) async fn check_references_late(tx: &mut Tx, late: bool) -> Result<()> {
    let sql = "select cast(conrelid::regclass as text) as name, cast(conname as text) as rule \
               from pg_constraint where contype = 'f' and connamespace = current_schema()::regnamespace \
               and condeferrable <> $1";
    let word = if late { "deferrable" } else { "not deferrable" };
    for rule in tx.fetch_all(sql, vec![late.into()]).await? {
        let (table, rule) = (rule.text("name")?, rule.text("rule")?);
        tx.script(format!(
            "alter table {table} alter constraint {rule} {word}"
        ))
        .await?;
    }
    Ok(())
}

/// A change of a key is two: of the row that is gone, and of the one that is there.
fn triggers(table: &Table) -> String {
    let name = table.name;
    let note = |row: &str| {
        let key: Vec<String> = table.key.iter().map(|c| format!("{row}.{c}")).collect();
        let key = key.join(", ");
        format!("insert into {CHANGES} (name, key) values ('{name}', json_array({key}));")
    };
    let (old, new) = (note("old"), note("new"));
    [
        ("insert", new.clone()),
        ("update", format!("{old} {new}")),
        ("delete", old),
    ]
    .map(|(event, notes)| {
        format!(
            "create trigger {CHANGES}_{name}_{event} after {event} on {name} begin {notes} end;"
        )
    })
    .concat()
}

/// Removes the notes, and what makes them.
pub(super) async fn end_noting(tx: &mut Tx) -> Result<()> {
    let sql = "select name as n from sqlite_schema where type = 'trigger' and name like $1";
    let pattern = Arg::text(format!("{CHANGES}_%"));
    for trigger in tx.fetch_all(sql, vec![pattern]).await? {
        let trigger = trigger.text("n")?;
        tx.script(format!("drop trigger {trigger}")).await?;
    }
    tx.script(format!("drop table if exists {CHANGES}")).await
}

/// Brings the copy to the state that the catalog has now. Returns how many rows had changed since the last round.
async fn round(
    from: &Db,
    to: &Db,
    tables: &[Table],
    rows_at_once: u32,
    progress: &mut (impl FnMut(TableProgress) -> Result<()> + Send),
) -> Result<u64> {
    let mut state = from.read().await?;
    let sql = format!("select coalesce(max(seq), 0) as seq from {CHANGES}");
    let row = state.fetch_optional(sql, Vec::new()).await?;
    let seq = row.map_or(Ok(0), |row| row.int("seq"))?;
    let changed = match bring_to(&mut state, to, tables, seq).await {
        // What is unique has gone from a row to another one, and neither is gone.
        Err(error) if error.kind() == ErrorKind::Conflict => {
            tracing::warn!(error.chain = %error.chain(), "all is copied again");
            let mut tx = to.write().await?;
            empty(&mut tx).await?;
            tx.commit().await?;
            1
        }
        changed => changed?,
    };
    for table in tables {
        copy(table, &mut state, to, rows_at_once, progress).await?;
    }
    drop(state);
    if changed > 0 {
        let mut tx = from.write().await?;
        let sql = format!("delete from {CHANGES} where seq <= $1");
        tx.execute(sql, vec![seq.into()]).await?;
        tx.commit().await?;
    }
    Ok(changed)
}

/// Brings the rows that have been copied to a state, by the notes up to `seq`: in one transaction, since rows refer to each other.
async fn bring_to(state: &mut Tx, to: &Db, tables: &[Table], seq: i64) -> Result<u64> {
    let changes = noted(state, seq).await?;
    if changes.is_empty() {
        return Ok(0);
    }
    let mut tx = to.write().await?;
    let begun = begun(&mut tx).await?;
    let changed: Vec<_> = tables
        .iter()
        .filter(|table| begun.contains(table.name))
        .filter_map(|table| Some((table, changes.get(table.name)?)))
        .collect();
    tx.script("set constraints all deferred".to_owned()).await?;
    // What is unique may have gone from one row to another.
    for (table, keys) in changed.iter().rev() {
        table.remove_what_is_gone(&mut tx, keys, state).await?;
    }
    for (table, keys) in &changed {
        table.write_what_is_there(&mut tx, keys, state).await?;
    }
    tx.commit().await?;
    Ok(changes.values().map(|keys| keys.len() as u64).sum())
}

/// The tables that rows have been copied of.
async fn begun(tx: &mut Tx) -> Result<BTreeSet<String>> {
    let sql = "select name from catalog_copies";
    let rows = tx.fetch_all(sql, Vec::new()).await?;
    rows.iter().map(|row| row.text("name")).collect()
}

/// The keys that were noted, each once, by their tables.
async fn noted(state: &mut Tx, seq: i64) -> Result<BTreeMap<String, Vec<Vec<Key>>>> {
    let sql = format!("select distinct name, key from {CHANGES} where seq <= $1");
    let mut noted: BTreeMap<String, Vec<Vec<Key>>> = BTreeMap::new();
    for row in state.fetch_all(sql, vec![seq.into()]).await? {
        let keys = noted.entry(row.text("name")?).or_default();
        keys.push(row.json("key")?);
    }
    Ok(noted)
}
