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
use std::time::{Duration, Instant};

use calotype_core::{Error, ErrorKind, Result};

use super::table::{Key, Table};
use super::{
    Progress, Relocation, begin, check_arriving, copy, empty, open_both, open_source, tables_of,
};
use crate::db::{Arg, Db, Tx};
use crate::examine::version;
use crate::migrate::newest;

/// The table of notes.
const CHANGES: &str = "catalog_changes";

/// How long a round waits after another one.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a round copies from one state of the database. SQLite's journal grows, and can't be emptied, while it is read.
const ROUND: Duration = Duration::from_secs(2);

/// How many notes are read, and how many are removed, at once.
const NOTES: i64 = 10_000;

/// Copies a catalog while a service works on it, and goes on copying what is changed, until `stopped` says that none works on it
/// any more. It is told how many rows had changed since it was asked before. [`super::relocate`] does the rest.
///
/// # Errors
/// As [`super::relocate`]; Conflict where the service is of another version; what `stopped` returns, which ends it.
pub async fn follow(
    order: &Relocation<'_>,
    mut progress: impl FnMut(Progress) -> Result<()> + Send,
    mut stopped: impl FnMut(u64) -> Result<bool> + Send,
) -> Result<()> {
    check_version(order).await?;
    let (from, to) = open_both(order).await?;
    begin(&from, &to).await?;
    let tables = tables_of(&to).await?;
    begin_noting(&from, &to, &tables).await?;
    let mut last = false;
    loop {
        let done = round(&from, &to, &tables, order.rows_at_once, &mut progress).await?;
        match done {
            Round::Short => {}
            Round::Whole { .. } if last => return Ok(()),
            // What was written up to the stop is copied in one more.
            Round::Whole { changed } => last = stopped(changed)?,
        }
        if !last {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What a round did.
enum Round {
    /// It ended before all was copied.
    Short,
    /// The copy is what the catalog was when it began.
    Whole {
        /// How many rows had changed since the round before.
        changed: u64,
    },
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
    let version = version(&mut from.read().await?, &from).await?;
    if version == newest() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "The catalog has schema version {version}, and this program's is {}: follow it with the program that serves it.",
        newest()
    )))
}

async fn is_noting(from: &Db) -> Result<bool> {
    let sql = "select 1 from sqlite_schema where type = 'table' and name = $1";
    let found = from
        .fetch_all(sql.to_owned(), vec![Arg::text(CHANGES)])
        .await?;
    Ok(!found.is_empty())
}

/// From here on each row that is written is noted. What was copied before that is copied again.
async fn begin_noting(from: &Db, to: &Db, tables: &[Table]) -> Result<()> {
    let mut there = to.write().await?;
    check_references_late(&mut there, true).await?;
    if !is_noting(from).await? {
        empty(&mut there).await?;
    }
    there.commit().await?;
    let mut tx = from.write().await?;
    tx.script(format!(
        "create table if not exists {CHANGES} \
         (seq integer primary key autoincrement, name text not null, key text not null)"
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

/// A change of a key is two: of the row that is there, and of the one that is gone.
fn triggers(table: &Table) -> String {
    let name = table.name;
    let note = |row: &str| {
        let key: Vec<String> = table.key.iter().map(|c| format!("{row}.{c}")).collect();
        let key = key.join(", ");
        format!("insert into {CHANGES} (name, key) values ('{name}', json_array({key}));")
    };
    let changed = table.key.iter();
    let changed: Vec<_> = changed.map(|c| format!("old.{c} is not new.{c}")).collect();
    let rekeyed = format!("update on {name} when {}", changed.join(" or "));
    [
        ("insert", format!("insert on {name}"), "new"),
        ("update", format!("update on {name}"), "new"),
        ("rekey", rekeyed, "old"),
        ("delete", format!("delete on {name}"), "old"),
    ]
    .map(|(word, event, row)| {
        let note = note(row);
        format!(
            "create trigger if not exists {CHANGES}_{name}_{word} after {event} begin {note} end;"
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

/// Brings the copy to the state that the catalog has now, and copies more of it.
async fn round(
    from: &Db,
    to: &Db,
    tables: &[Table],
    rows_at_once: u32,
    progress: &mut (impl FnMut(Progress) -> Result<()> + Send),
) -> Result<Round> {
    let end = Instant::now() + ROUND;
    let mut state = from.read().await?;
    let sql = format!("select coalesce(max(seq), 0) as seq from {CHANGES}");
    let row = state.fetch_optional(sql, Vec::new()).await?;
    let seq = row.map_or(Ok(0), |row| row.int("seq"))?;
    let changed = match bring_to(&mut state, to, tables, seq).await {
        // What is unique has gone from a row to another one, and neither is gone.
        Err(error) if error.kind() == ErrorKind::Conflict => {
            progress(Progress::Anew)?;
            let mut tx = to.write().await?;
            empty(&mut tx).await?;
            tx.commit().await?;
            0
        }
        changed => changed?,
    };
    let mut whole = true;
    for table in tables {
        let copied = copy(table, &mut state, to, rows_at_once, Some(end), progress);
        if !copied.await? {
            whole = false;
            break;
        }
    }
    drop(state);
    remove_notes(from, seq).await?;
    Ok(if whole {
        Round::Whole { changed }
    } else {
        Round::Short
    })
}

/// In steps, so that the service's writes wait for none for long.
async fn remove_notes(from: &Db, seq: i64) -> Result<()> {
    let sql = format!(
        "delete from {CHANGES} where seq <= $1 \
         and seq < (select min(seq) from {CHANGES}) + {NOTES}"
    );
    let mut left = seq > 0;
    while left {
        let mut tx = from.write().await?;
        left = tx.execute(sql.clone(), vec![seq.into()]).await? > 0;
        tx.commit().await?;
    }
    Ok(())
}

/// Brings the rows that have been copied to a state, by the notes up to `seq`: in one transaction, since rows refer to each other.
/// Returns how many rows those were.
async fn bring_to(state: &mut Tx, to: &Db, tables: &[Table], seq: i64) -> Result<u64> {
    if seq == 0 {
        return Ok(0);
    }
    let (mut after, mut changed) = (0, 0);
    let mut tx = to.write().await?;
    check_arriving(&mut tx).await?;
    let begun = begun(&mut tx).await?;
    tx.script("set constraints all deferred".to_owned()).await?;
    while after < seq {
        let until = seq.min(next_end(state, after).await?);
        let noted = noted(state, after, until).await?;
        let mut these = Vec::new();
        for table in tables.iter().filter(|table| begun.contains(table.name)) {
            if let Some(keys) = noted.get(table.name) {
                these.push((table, keys, table.read_these(state, keys).await?));
                changed += keys.len() as u64;
            }
        }
        // What is unique may have gone from one row to another.
        for (table, keys, rows) in these.iter().rev() {
            table.remove_but(&mut tx, keys, rows).await?;
        }
        for (table, _, rows) in &these {
            table.write(&mut tx, rows).await?;
        }
        after = until;
    }
    tx.commit().await?;
    Ok(changed)
}

/// The number of the last of the next notes.
async fn next_end(state: &mut Tx, after: i64) -> Result<i64> {
    let sql = format!(
        "select coalesce(max(seq), $1) as seq from \
         (select seq from {CHANGES} where seq > $1 order by seq limit {NOTES})"
    );
    let row = state.fetch_optional(sql, vec![after.into()]).await?;
    row.map_or(Ok(after), |row| row.int("seq"))
}

/// The tables that rows have been copied of.
async fn begun(tx: &mut Tx) -> Result<BTreeSet<String>> {
    let sql = "select name from catalog_copies";
    let rows = tx.fetch_all(sql, Vec::new()).await?;
    rows.iter().map(|row| row.text("name")).collect()
}

/// The keys that were noted, each once, by their tables.
async fn noted(state: &mut Tx, after: i64, until: i64) -> Result<BTreeMap<String, Vec<Vec<Key>>>> {
    let sql = format!("select distinct name, key from {CHANGES} where seq > $1 and seq <= $2");
    let mut noted: BTreeMap<String, Vec<Vec<Key>>> = BTreeMap::new();
    for row in state
        .fetch_all(sql, vec![after.into(), until.into()])
        .await?
    {
        let keys = noted.entry(row.text("name")?).or_default();
        keys.push(row.json("key")?);
    }
    Ok(noted)
}
