//! Brings the schema up to date at start.
//!
//! The steps are one transaction under a lock: of servers that start at once, one migrates and the others wait and find
//! it done. A crash leaves the old schema. Indexes that are to keep no writer waiting are made after it, one by one; a crash
//! leaves some of them to the next start.
//!
//! A schema that a newer version has migrated is taken where that version says that programs as old as this one can
//! work with it, and else refused, untouched. How steps must be written for that is in ADR 0017.

use std::time::Duration;

use calotype_core::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::db::{Arg, Db, Engine, Tx, is_cut, meaning};
use crate::postgres::Postgres;

#[derive(Clone, Copy)]
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
    /// The oldest version whose programs can work with the schema that this step leaves.
    compatible_from: i64,
    /// Made after the step, on PostgreSQL without keeping writers waiting.
    indexes: &'static [Index],
}

/// An index: `create index NAME on ON`.
struct Index {
    name: &'static str,
    on: &'static str,
    /// One that is dropped when this one is there.
    replaces: Option<&'static str>,
}

/// The first step that says which versions can work with it.
pub(crate) const FIRST_WITH_COMPATIBILITY: i64 = 10;

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "foundation",
        sql: include_str!("../migrations/0001_foundation.sql"),
        compatible_from: 1,
        indexes: &[],
    },
    Migration {
        version: 2,
        name: "upkeep",
        sql: include_str!("../migrations/0002_upkeep.sql"),
        compatible_from: 2,
        indexes: &[],
    },
    Migration {
        version: 3,
        name: "reseal",
        sql: include_str!("../migrations/0003_reseal.sql"),
        compatible_from: 3,
        indexes: &[],
    },
    Migration {
        version: 4,
        name: "master keys",
        sql: include_str!("../migrations/0004_master_keys.sql"),
        compatible_from: 4,
        indexes: &[],
    },
    Migration {
        version: 5,
        name: "progress",
        sql: include_str!("../migrations/0005_progress.sql"),
        compatible_from: 5,
        indexes: &[],
    },
    Migration {
        version: 6,
        name: "work",
        sql: include_str!("../migrations/0006_work.sql"),
        compatible_from: 6,
        indexes: &[],
    },
    Migration {
        version: 7,
        name: "quotas",
        sql: include_str!("../migrations/0007_quotas.sql"),
        compatible_from: 7,
        indexes: &[],
    },
    Migration {
        version: 8,
        name: "enterprise_roles",
        sql: include_str!("../migrations/0008_enterprise_roles.sql"),
        compatible_from: 8,
        indexes: &[],
    },
    Migration {
        version: 9,
        name: "filters",
        sql: include_str!("../migrations/0009_filters.sql"),
        compatible_from: 9,
        indexes: &[],
    },
    Migration {
        version: 10,
        name: "nodes",
        sql: include_str!("../migrations/0010_nodes.sql"),
        compatible_from: 10,
        // What everybody sees, sorted by id: else it is sought among what nobody else sees.
        indexes: &[Index {
            name: "images_by_shelf_id",
            on: "images (visibility, id) where visibility in ('public', 'community')",
            replaces: None,
        }],
    },
    Migration {
        version: 11,
        name: "stores",
        sql: include_str!("../migrations/0011_stores.sql"),
        // Until there is a second store: see `several_stores`.
        compatible_from: 10,
        indexes: &[Index {
            name: "blobs_by_store",
            on: "blobs (store, id)",
            replaces: None,
        }],
    },
    Migration {
        version: 12,
        name: "queue",
        sql: include_str!("../migrations/0012_queue.sql"),
        compatible_from: 10,
        // The first of a project's jobs that is due, however many wait; and how many of them run.
        indexes: &[
            Index {
                name: "jobs_queued",
                on: "jobs (project, due_at, created_at, id) where ended_at is null",
                replaces: None,
            },
            Index {
                name: "jobs_leased",
                on: "jobs (project, due_at) where ended_at is null and lease_owner is not null",
                replaces: None,
            },
        ],
    },
    Migration {
        version: 13,
        name: "scrub",
        sql: include_str!("../migrations/0013_scrub.sql"),
        compatible_from: 10,
        indexes: &[
            // The one that was read the longest ago.
            Index {
                name: "blobs_by_scrub",
                on: "blobs (coalesce(scrubbed_at, 0), id) where state = 'stored'",
                replaces: None,
            },
            Index {
                name: "blobs_damaged",
                on: "blobs (id) where damaged_at is not null",
                replaces: None,
            },
        ],
    },
    Migration {
        version: 14,
        name: "lists of all",
        sql: "",
        compatible_from: 10,
        // Who sees all projects has lists by expressions that nobody else's lists are by. PostgreSQL chooses by what it expects,
        // and could take the order of all images for that of one owner's, and read all others' to find them.
        indexes: &[
            Index {
                name: "images_of_all",
                on: "images ((created_at + 0), id)",
                replaces: Some("images_by_creation"),
            },
            Index {
                name: "images_of_all_by_name",
                on: "images ((name_key || ''), (created_at + 0), id)",
                replaces: Some("images_by_name"),
            },
            Index {
                name: "image_tags_of_all",
                on: "image_tags (tag, (created_at + 0), image_id)",
                replaces: Some("image_tags_by_tag"),
            },
            Index {
                name: "image_properties_of_all",
                on: "image_properties (name, value, (created_at + 0), image_id)",
                replaces: Some("image_properties_by_value"),
            },
            // The same of an owner's images of one visibility, and everybody's; and of an owner's by their ids, and everybody's.
            Index {
                name: "images_by_owner_kind",
                on: "images (owner, (visibility || ''), created_at, id)",
                replaces: Some("images_by_owner_visibility"),
            },
            Index {
                name: "images_by_owner_own_id",
                on: "images (owner, (id || ''))",
                replaces: Some("images_by_owner_id"),
            },
        ],
    },
    Migration {
        version: 15,
        name: "lists of shelves",
        sql: "",
        compatible_from: 10,
        indexes: &[
            // What everybody sees, sorted by size and by change, as an owner's are.
            Index {
                name: "images_by_shelf_size",
                on: "images (visibility, coalesce(size, -1), created_at, id) \
                     where visibility in ('public', 'community')",
                replaces: None,
            },
            Index {
                name: "images_by_shelf_update",
                on: "images (visibility, updated_at, created_at, id) \
                     where visibility in ('public', 'community')",
                replaces: None,
            },
            Index {
                name: "images_by_owner_update",
                on: "images (owner, updated_at, created_at, id)",
                replaces: Some("images_by_owner_change"),
            },
            // What is shared with a project, sorted by id: else it is sought among what is shared with others.
            Index {
                name: "image_members_by_project_id",
                on: "image_members (project, (image_id || ''))",
                replaces: None,
            },
            // As in the step before: the order of all images is not to look as good as that of a shelf, where many are on it...
            Index {
                name: "images_by_shelf_own_id",
                on: "images (visibility, (id || '')) where visibility in ('public', 'community')",
                replaces: Some("images_by_shelf_id"),
            },
            // ... nor the order of a shelf as good as its order below a column's value, which one for any value may have.
            Index {
                name: "images_by_kind",
                on: "images ((visibility || ''), created_at, id)",
                replaces: Some("images_by_visibility"),
            },
        ],
    },
];

/// The advisory lock that migrating servers take: "calotype" in ASCII.
const LOCK: i64 = 0x6361_6c6f_7479_7065;

/// How often it is asked for. It is not waited for in a statement: indexes that keep no writer waiting are made only when
/// every statement has ended that began before.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How long a step waits for a table, with all who want the table waiting behind it, before it lets them by.
const TABLE_PATIENCE: Duration = Duration::from_secs(3);
const TABLE_ATTEMPTS: u32 = 60;
const TABLE_PAUSE: Duration = Duration::from_secs(1);

/// The newest version that this program knows.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

pub(crate) async fn migrate(db: &Db) -> Result<()> {
    bring_to(db, MIGRATIONS).await
}

async fn bring_to(db: &Db, migrations: &[Migration]) -> Result<()> {
    let Db::Postgres(postgres) = db else {
        let mut tx = db.write().await?;
        apply(&mut tx, migrations).await?;
        return tx.commit().await;
    };
    // Ends with the session, whatever ends that.
    let mut session = locked(postgres).await?;
    let mut attempts = 0;
    let known = loop {
        let mut tx = db.write().await?;
        let patience = TABLE_PATIENCE.as_millis();
        let limits =
            format!("set local statement_timeout = 0; set local lock_timeout = {patience}");
        tx.script(limits).await?;
        match apply(&mut tx, migrations).await {
            Ok(known) => {
                tx.commit().await?;
                break known;
            }
            Err(error) if is_busy(&error) && attempts < TABLE_ATTEMPTS => {
                drop(tx);
                attempts += 1;
                tracing::info!("the schema's tables are in use, migrating later");
                tokio::time::sleep(TABLE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    if known {
        for index in lasting(migrations) {
            index.make_beside_writers(&mut session).await?;
        }
    }
    Ok(())
}

/// The indexes of these steps that none of them replaces.
fn lasting(migrations: &[Migration]) -> impl Iterator<Item = &Index> {
    let all = || migrations.iter().flat_map(|migration| migration.indexes);
    all().filter(move |index| all().all(|other| other.replaces != Some(index.name)))
}

/// A session that has the lock.
async fn locked(postgres: &Postgres) -> Result<PgConnection> {
    let mut session = postgres.session().await?;
    let unlimited = sqlx::raw_sql("set statement_timeout = 0");
    unlimited.execute(&mut session).await.map_err(meaning)?;
    let mut told = false;
    loop {
        let lock = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LOCK);
        if lock.fetch_one(&mut session).await.map_err(meaning)? {
            return Ok(session);
        }
        if !told {
            tracing::info!("another process looks after the schema, waiting for it");
            told = true;
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Whether a table was not to be had in time.
fn is_busy(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable { .. }) && !is_cut(error)
}

/// Does the steps that are missing. False where the schema is a newer version's that this program can work with.
async fn apply(tx: &mut Tx, migrations: &[Migration]) -> Result<bool> {
    let ledger = "create table if not exists schema_migrations (\
        version bigint not null primary key, name text not null, applied_at bigint not null)";
    tx.execute(ledger, Vec::new()).await?;
    let sql = "select coalesce(max(version), 0) as version from schema_migrations";
    let row = tx.fetch_optional(sql, Vec::new()).await?;
    let current = row.map_or(Ok(0), |row| row.int("version"))?;
    let newest = migrations.last().map_or(0, |migration| migration.version);
    if current > newest {
        check_compatible(tx, current, newest).await?;
        return Ok(false);
    }
    for migration in migrations
        .iter()
        .filter(|migration| migration.version > current)
    {
        apply_one(tx, migration).await?;
    }
    Ok(true)
}

/// Whether a program that knows versions up to `newest` can work with version `current`.
async fn check_compatible(tx: &mut Tx, current: i64, newest: i64) -> Result<()> {
    let sql = "select coalesce(compatible_from, version) as oldest from schema_migrations \
               where version = $1";
    let oldest = if newest < FIRST_WITH_COMPATIBILITY {
        current
    } else {
        let row = tx.fetch_optional(sql, vec![current.into()]).await?;
        row.map_or(Ok(current), |row| row.int("oldest"))?
    };
    if oldest > newest {
        return Err(Error::internal(format!(
            "the database has schema version {current}, for programs that know version {oldest}, and this one knows \
             {newest} at most: run a newer version of it"
        )));
    }
    tracing::info!(
        schema.version = current,
        schema.known = newest,
        "the schema is a newer version's, which this one can work with"
    );
    Ok(())
}

async fn apply_one(tx: &mut Tx, migration: &Migration) -> Result<()> {
    let mut sql = in_words_of(tx.engine(), migration.sql);
    if tx.engine() == Engine::Sqlite {
        for Index { name, on, replaces } in migration.indexes {
            sql.push_str(&format!(";\ncreate index {name} on {on}"));
            if let Some(replaced) = replaces {
                sql.push_str(&format!(";\ndrop index {replaced}"));
            }
        }
    }
    tx.script(sql).await?;
    let now = tx.now().await?;
    let mut args = vec![
        migration.version.into(),
        Arg::text(migration.name),
        Arg::time(now),
    ];
    let sql = if migration.version < FIRST_WITH_COMPATIBILITY {
        "insert into schema_migrations (version, name, applied_at) values ($1, $2, $3)"
    } else {
        args.push(migration.compatible_from.into());
        "insert into schema_migrations (version, name, applied_at, compatible_from) \
         values ($1, $2, $3, $4)"
    };
    tx.execute(sql, args).await?;
    tracing::info!(
        schema.version = migration.version,
        schema.name = migration.name,
        "schema migrated"
    );
    Ok(())
}

/// A step's text with what the engine calls things.
fn in_words_of(engine: Engine, sql: &str) -> String {
    let words = match engine {
        Engine::Postgres => [
            ("{text}", "text collate \"C\""),
            ("{blob}", "bytea"),
            (
                "{serial}",
                "bigint generated always as identity primary key",
            ),
        ],
        Engine::Sqlite => [
            ("{text}", "text"),
            ("{blob}", "blob"),
            ("{serial}", "integer primary key autoincrement"),
        ],
    };
    let replace = |sql: String, (word, meaning)| sql.replace(word, meaning);
    words.into_iter().fold(sql.to_owned(), replace)
}

impl Index {
    /// Makes it where it is missing, and anew where a process died making it: what that leaves is of no use to queries. Then the
    /// one goes that it replaces.
    async fn make_beside_writers(&self, session: &mut PgConnection) -> Result<()> {
        let Self { name, on, replaces } = self;
        let unfinished = format!("drop index concurrently if exists {name}");
        let make = format!("create index concurrently if not exists {name} on {on}");
        let mut steps = match is_valid(name, session).await? {
            Some(true) => vec![],
            Some(false) => vec![unfinished, make],
            None => vec![make],
        };
        if let Some(replaced) = replaces
            && is_valid(replaced, session).await?.is_some()
        {
            let (table, _) = on.split_once(' ').unwrap_or((on, ""));
            // Of an expression nothing is known before.
            steps.push(format!("analyze {table}"));
            steps.push(format!("drop index concurrently if exists {replaced}"));
        }
        for sql in steps {
            tracing::info!(schema.step = %sql, "changing indexes");
            let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *session);
            done.await.map_err(meaning)?;
        }
        Ok(())
    }
}

/// Whether an index is of use to queries; nothing where it is not there.
async fn is_valid(index: &str, session: &mut PgConnection) -> Result<Option<bool>> {
    let sql = "select i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid \
               where c.relname = $1 and c.relnamespace = current_schema()::regnamespace";
    let found = sqlx::query(sql).bind(index).fetch_optional(session);
    let found = found.await.map_err(meaning)?;
    found.map(|row| row.try_get(0).map_err(meaning)).transpose()
}

#[cfg(test)]
mod tests;
