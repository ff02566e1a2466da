//! Steps with indexes that keep nobody waiting, on both engines.

use std::sync::Arc;

use sqlx::Connection as _;

use super::*;
use crate::SqlCatalog;
use crate::clock::Epoch;
use crate::engines;
use crate::open::Options;

/// The schema as a later version would have it: with an index in the place of another.
fn later() -> Vec<Migration> {
    let mut migrations = MIGRATIONS.to_vec();
    migrations.push(Migration {
        version: 999,
        name: "later",
        sql: "alter table leases add column note bigint; create index leases_by_old on leases (note)",
        compatible_from: 10,
        indexes: &[Index {
            name: "leases_by_note",
            on: "leases (note)",
            replaces: Some("leases_by_old"),
        }],
    });
    migrations
}

async fn open(url: &str) -> Result<SqlCatalog> {
    SqlCatalog::open(url, Options::default(), Arc::new(Epoch)).await
}

async fn tamper(url: &str, sql: &'static str) {
    let mut c = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut c).await.unwrap();
}

/// Whether the index is there, and the one that it replaces is not.
async fn is_valid(url: &str) -> bool {
    let mut c = PgConnection::connect(url).await.unwrap();
    let sql = "select indisvalid and to_regclass('leases_by_old') is null from pg_index \
               where indexrelid = 'leases_by_note'::regclass";
    sqlx::query_scalar(sql).fetch_one(&mut c).await.unwrap()
}

#[tokio::test]
async fn on_sqlite_an_index_is_made_with_its_step() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", place.path().join("catalog.db").display());
    let catalog = open(&url).await.unwrap();
    bring_to(&catalog.db, &later()).await.unwrap();
    let mut tx = catalog.db.read().await.unwrap();
    let sql = "select name from sqlite_schema where name in ('leases_by_note', 'leases_by_old')";
    let rows = tx.fetch_all(sql, Vec::new()).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.text("name").unwrap()).collect();
    assert_eq!(names, ["leases_by_note"]);
}

#[test]
fn an_index_that_a_later_step_replaces_is_not_made_again_at_each_start() {
    let lasting = |migrations: &[Migration]| -> Vec<&str> {
        lasting(migrations).map(|index| index.name).collect()
    };
    assert!(lasting(MIGRATIONS).contains(&"images_by_shelf_own_id"));
    assert!(!lasting(MIGRATIONS).contains(&"images_by_shelf_id"));
    let (before, _) = MIGRATIONS.split_at(14);
    assert!(lasting(before).contains(&"images_by_shelf_id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_made_beside_writers_and_anew_where_its_making_was_broken_off() {
    let server = engines::Server::start().await;
    let url = server.database("concurrent_index").await;
    let catalog = open(&url).await.unwrap();
    bring_to(&catalog.db, &later()).await.unwrap();
    assert!(is_valid(&url).await);

    // As a process leaves it that dies meanwhile.
    tamper(
        &url,
        "update pg_index set indisvalid = false where indexrelid = 'leases_by_note'::regclass",
    )
    .await;
    bring_to(&catalog.db, &later()).await.unwrap();
    assert!(is_valid(&url).await);

    // Or when it has not dropped the other one yet.
    tamper(&url, "create index leases_by_old on leases (note)").await;
    bring_to(&catalog.db, &later()).await.unwrap();
    assert!(is_valid(&url).await);

    // Or before it began.
    tamper(&url, "drop index leases_by_note").await;
    bring_to(&catalog.db, &later()).await.unwrap();
    assert!(is_valid(&url).await);

    // A program of this version takes it, and leaves the index alone.
    open(&url).await.unwrap();
    assert!(is_valid(&url).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_nodes_that_start_at_once_on_an_older_schema_one_migrates() {
    let server = engines::Server::start().await;
    let url = server.database("migrate_at_once").await;
    open(&url).await.unwrap();
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let catalog = open(&url).await.unwrap();
        starting.spawn(async move { bring_to(&catalog.db, &later()).await });
    }
    for started in starting.join_all().await {
        started.unwrap();
    }
    assert!(is_valid(&url).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_waits_for_a_table_in_use_without_keeping_others_from_it() {
    let server = engines::Server::start().await;
    let url = server.database("busy_table").await;
    let catalog = open(&url).await.unwrap();
    let mut user = PgConnection::connect(&url).await.unwrap();
    let hold = "begin; lock table leases in access share mode";
    sqlx::raw_sql(hold).execute(&mut user).await.unwrap();
    let db = catalog.db.clone();
    let migrating = tokio::spawn(async move { bring_to(&db, &later()).await });
    // It waits for the table...
    let mut other = PgConnection::connect(&url).await.unwrap();
    let waiting = "select count(*) from pg_locks where relation = 'leases'::regclass \
                   and mode = 'AccessExclusiveLock' and not granted";
    loop {
        let found: i64 = sqlx::query_scalar(waiting)
            .fetch_one(&mut other)
            .await
            .unwrap();
        if found > 0 {
            break;
        }
    }
    // ... and lets by who comes after it, though the table is still in use.
    let write = "insert into leases values ('a', 'b', 0)";
    sqlx::raw_sql(write).execute(&mut other).await.unwrap();
    sqlx::raw_sql("commit").execute(&mut user).await.unwrap();
    migrating.await.unwrap().unwrap();
    assert!(is_valid(&url).await);
}
