//! A table as rows of values, whatever it is about.

use std::collections::BTreeSet;

use calotype_core::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::db::{Arg, Db, Row, Tx};

/// How many rows are read at once.
const ROWS_AT_ONCE: u32 = 1000;

/// How many rows are named at once. SQLite takes a condition of a thousand parts.
const KEYS_AT_ONCE: usize = 200;

/// The most values of one statement on PostgreSQL.
const MOST_VALUES: usize = 60_000;

/// A table's columns.
pub(super) struct Table {
    pub(super) name: &'static str,
    columns: Vec<Column>,
    pub(super) key: Vec<String>,
}

struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bool,
    Blob,
}

/// A value of a primary key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Key {
    Int(i64),
    Text(String),
}

impl Key {
    fn to_arg(&self) -> Arg {
        match self {
            Self::Int(value) => (*value).into(),
            Self::Text(value) => Arg::text(value),
        }
    }
}

impl Table {
    /// The table as PostgreSQL has it: the steps of the schema are the same for both.
    pub(super) async fn of(db: &Db, name: &'static str) -> Result<Self> {
        let mut tx = db.read().await?;
        let sql = "select cast(column_name as text) as name, cast(data_type as text) as kind \
                   from information_schema.columns \
                   where table_schema = current_schema() and table_name = $1 order by column_name";
        let rows = tx.fetch_all(sql, vec![Arg::text(name)]).await?;
        let columns: Result<Vec<Column>> = rows.iter().map(column_of).collect();
        let sql = "select cast(a.attname as text) as name from pg_index i \
                   join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) \
                   where i.indrelid = cast($1 as text)::regclass and i.indisprimary \
                   order by array_position(i.indkey::int2[], a.attnum)";
        let rows = tx.fetch_all(sql, vec![Arg::text(name)]).await?;
        let key: Result<Vec<String>> = rows.iter().map(|row| row.text("name")).collect();
        let (columns, key) = (columns?, key?);
        if columns.is_empty() || key.is_empty() {
            return Err(Error::internal(format!("the table {name} has no key")));
        }
        Ok(Self { name, columns, key })
    }

    pub(super) async fn count(&self, tx: &mut Tx) -> Result<u64> {
        let sql = format!("select count(*) as n from {}", self.name);
        let row = tx.fetch_optional(sql, Vec::new()).await?;
        row.map_or(Ok(0), |row| row.count("n"))
    }

    /// The next rows in the order of the key.
    pub(super) async fn read(
        &self,
        tx: &mut Tx,
        after: Option<&Vec<Key>>,
        limit: u32,
    ) -> Result<Vec<Vec<Arg>>> {
        let names = self.names().join(", ");
        let (name, key) = (self.name, self.key.join(", "));
        let mut args: Vec<Arg> = vec![i64::from(limit).into()];
        let mut condition = String::new();
        if let Some(after) = after {
            let places: Vec<String> = (2..after.len() + 2).map(|n| format!("${n}")).collect();
            condition = format!("where ({key}) > ({}) ", places.join(", "));
            args.extend(after.iter().map(Key::to_arg));
        }
        let sql = format!("select {names} from {name} {condition}order by {key} limit $1");
        self.rows(tx, sql, args).await
    }

    async fn rows(&self, tx: &mut Tx, sql: String, args: Vec<Arg>) -> Result<Vec<Vec<Arg>>> {
        let rows = tx.fetch_all(sql, args).await?;
        rows.iter().map(|row| self.values_of(row)).collect()
    }

    /// The rows of these keys that there are.
    pub(super) async fn read_these(&self, tx: &mut Tx, keys: &[Vec<Key>]) -> Result<Vec<Vec<Arg>>> {
        let (names, name) = (self.names().join(", "), self.name);
        let mut found = Vec::new();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let (condition, args) = self.one_of(keys);
            let sql = format!("select {names} from {name} where {condition}");
            found.append(&mut self.rows(tx, sql, args).await?);
        }
        Ok(found)
    }

    /// Removes the rows of these keys, but for those that are among `rows`.
    pub(super) async fn remove_but(
        &self,
        tx: &mut Tx,
        keys: &[Vec<Key>],
        rows: &[Vec<Arg>],
    ) -> Result<()> {
        let there: Result<BTreeSet<_>> = rows.iter().map(|row| self.key_of(row)).collect();
        let there = there?;
        let gone = keys.iter().filter(|key| !there.contains(*key));
        let gone: Vec<Vec<Key>> = gone.cloned().collect();
        for keys in gone.chunks(KEYS_AT_ONCE) {
            let (condition, args) = self.one_of(keys);
            let sql = format!("delete from {} where {condition}", self.name);
            tx.execute(sql, args).await?;
        }
        Ok(())
    }

    fn one_of(&self, keys: &[Vec<Key>]) -> (String, Vec<Arg>) {
        let mut args: Vec<Arg> = Vec::new();
        let mut conditions = Vec::new();
        for key in keys {
            let mut parts = Vec::new();
            for (column, value) in self.key.iter().zip(key) {
                args.push(value.to_arg());
                parts.push(format!("{column} = ${}", args.len()));
            }
            conditions.push(format!("({})", parts.join(" and ")));
        }
        (conditions.join(" or "), args)
    }

    /// What becomes of a row that is there already.
    fn on_conflict(&self) -> String {
        let others = self.names().into_iter();
        let others = others.filter(|name| !self.key.iter().any(|key| key == name));
        let set: Vec<String> = others
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let key = self.key.join(", ");
        if set.is_empty() {
            return format!("on conflict ({key}) do nothing");
        }
        format!("on conflict ({key}) do update set {}", set.join(", "))
    }

    /// Writes rows, also over those that are there.
    pub(super) async fn write(&self, tx: &mut Tx, rows: &[Vec<Arg>]) -> Result<()> {
        for rows in rows.chunks((MOST_VALUES / self.columns.len()).max(1)) {
            let mut next = 0;
            let mut values = Vec::new();
            for row in rows {
                let places: Vec<String> = row
                    .iter()
                    .map(|_| {
                        next += 1;
                        format!("${next}")
                    })
                    .collect();
                values.push(format!("({})", places.join(", ")));
            }
            // The numbers of lines come along.
            let sql = format!(
                "insert into {} ({}) overriding system value values {} {}",
                self.name,
                self.names().join(", "),
                values.join(", "),
                self.on_conflict()
            );
            tx.execute(sql, rows.concat()).await?;
        }
        Ok(())
    }

    /// How many rows there are, and the digest of them all in the order of the key. It covers every value and where each begins.
    pub(super) async fn digest(&self, db: &Db) -> Result<(u64, String)> {
        let mut digest = Sha256::new();
        let mut rows = 0;
        let mut after = None;
        loop {
            let mut tx = db.read().await?;
            let batch = self.read(&mut tx, after.as_ref(), ROWS_AT_ONCE).await?;
            let Some(last) = batch.last() else {
                break;
            };
            after = Some(self.key_of(last)?);
            rows += batch.len() as u64;
            for value in batch.iter().flatten() {
                add(&mut digest, value);
            }
        }
        let sum = digest.finalize();
        let hex = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((rows, hex))
    }

    pub(super) fn key_of(&self, row: &[Arg]) -> Result<Vec<Key>> {
        let value = |name: &String| {
            let place = self.columns.iter().position(|column| column.name == *name);
            match place.and_then(|place| row.get(place)) {
                Some(Arg::Int(Some(value))) => Ok(Key::Int(*value)),
                Some(Arg::Text(Some(value))) => Ok(Key::Text(value.clone())),
                _ => Err(Error::internal(format!(
                    "the key of table {} can't be read",
                    self.name
                ))),
            }
        };
        self.key.iter().map(value).collect()
    }

    fn names(&self) -> Vec<&str> {
        let names = self.columns.iter().map(|column| column.name.as_str());
        names.collect()
    }

    fn values_of(&self, row: &Row) -> Result<Vec<Arg>> {
        let value = |column: &Column| {
            let name = column.name.as_str();
            Ok(match column.kind {
                Kind::Text => Arg::Text(row.opt_text(name)?),
                Kind::Int => Arg::Int(row.opt_int(name)?),
                Kind::Bool => Arg::Bool(row.opt_bool(name)?),
                Kind::Blob => Arg::Blob(row.opt_blob(name)?),
            })
        };
        self.columns.iter().map(value).collect()
    }
}

fn column_of(row: &Row) -> Result<Column> {
    let kind = match row.text("kind")?.as_str() {
        "text" => Kind::Text,
        "bigint" => Kind::Int,
        "boolean" => Kind::Bool,
        "bytea" => Kind::Blob,
        other => return Err(Error::internal(format!("a column is of type {other}"))),
    };
    Ok(Column {
        name: row.text("name")?,
        kind,
    })
}

fn add(digest: &mut Sha256, value: &Arg) {
    let (kind, bytes) = match value {
        Arg::Text(Some(text)) => (1, text.as_bytes()),
        Arg::Int(Some(number)) => (2, &number.to_be_bytes()[..]),
        Arg::Bool(Some(word)) => (3, &[u8::from(*word)][..]),
        Arg::Blob(Some(bytes)) => (4, bytes.as_slice()),
        Arg::Text(None) | Arg::Int(None) | Arg::Bool(None) | Arg::Blob(None) => (0, &[][..]),
    };
    digest.update([kind]);
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}
