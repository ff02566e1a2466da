//! Brings the schema up to date at start.
//!
//! All of it is one transaction under a lock: of servers that start at once, one migrates and the others
//! wait and find it done. A crash leaves the old schema. A database that a newer version has migrated is
//! refused, untouched.

use calotype_core::ports::Clock;
use calotype_core::{Error, Result};

use crate::db::{Arg, Db, Engine};

struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "foundation",
        sql: include_str!("../migrations/0001_foundation.sql"),
    },
    Migration {
        version: 2,
        name: "upkeep",
        sql: include_str!("../migrations/0002_upkeep.sql"),
    },
    Migration {
        version: 3,
        name: "reseal",
        sql: include_str!("../migrations/0003_reseal.sql"),
    },
    Migration {
        version: 4,
        name: "master keys",
        sql: include_str!("../migrations/0004_master_keys.sql"),
    },
    Migration {
        version: 5,
        name: "progress",
        sql: include_str!("../migrations/0005_progress.sql"),
    },
    Migration {
        version: 6,
        name: "work",
        sql: include_str!("../migrations/0006_work.sql"),
    },
    Migration {
        version: 7,
        name: "quotas",
        sql: include_str!("../migrations/0007_quotas.sql"),
    },
    Migration {
        version: 8,
        name: "enterprise_roles",
        sql: include_str!("../migrations/0008_enterprise_roles.sql"),
    },
    Migration {
        version: 9,
        name: "filters",
        sql: include_str!("../migrations/0009_filters.sql"),
    },
];

/// The advisory lock that migrating servers take: "calotype" in ASCII.
const LOCK: i64 = 0x6361_6c6f_7479_7065;

pub(crate) async fn migrate(db: &Db, clock: &dyn Clock) -> Result<()> {
    let mut tx = db.write().await?;
    let words = if tx.engine() == Engine::Postgres {
        tx.script("set local statement_timeout = 0".to_owned())
            .await?;
        let sql = "select pg_advisory_xact_lock($1)";
        tx.fetch_all(sql, vec![LOCK.into()]).await?;
        [
            ("{text}", "text collate \"C\""),
            ("{blob}", "bytea"),
            (
                "{serial}",
                "bigint generated always as identity primary key",
            ),
        ]
    } else {
        [
            ("{text}", "text"),
            ("{blob}", "blob"),
            ("{serial}", "integer primary key autoincrement"),
        ]
    };
    let ledger = "create table if not exists schema_migrations (\
        version bigint not null primary key, name text not null, applied_at bigint not null)";
    tx.execute(ledger, Vec::new()).await?;
    let sql = "select coalesce(max(version), 0) as version from schema_migrations";
    let row = tx.fetch_optional(sql, Vec::new()).await?;
    let current = row.map_or(Ok(0), |row| row.int("version"))?;
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if current > newest {
        return Err(Error::internal(format!(
            "the database has schema version {current}, and this program knows {newest} at most: \
             run a newer version of it"
        )));
    }
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| migration.version > current)
    {
        let mut sql = migration.sql.to_owned();
        for (word, meaning) in words {
            sql = sql.replace(word, meaning);
        }
        tx.script(sql).await?;
        let sql = "insert into schema_migrations (version, name, applied_at) values ($1, $2, $3)";
        let args = vec![
            migration.version.into(),
            Arg::text(migration.name),
            Arg::time(clock.now()),
        ];
        tx.execute(sql, args).await?;
        tracing::info!(
            schema.version = migration.version,
            schema.name = migration.name,
            "schema migrated"
        );
    }
    tx.commit().await
}
