//! The schema.

use calotype_core::ErrorKind;
use sqlx::{Connection as _, Row as _};

use crate::world::{World, assert_kind, open};

pub(crate) async fn a_newer_schema_is_refused(world: World) {
    world
        .tamper("insert into schema_migrations values (999, 'later', 0)")
        .await;
    assert_kind(open(&world.url).await, ErrorKind::Internal);
}

#[tokio::test]
async fn the_schema_is_the_one_that_was_reviewed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("catalog.db");
    open(&format!("sqlite://{}", path.display())).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut c = sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap();
    let sql = "select sql from sqlite_schema where sql is not null order by type desc, name";
    let rows = sqlx::query(sql).fetch_all(&mut c).await.unwrap();
    let texts: Vec<String> = rows.iter().map(|row| row.get("sql")).collect();
    insta::assert_snapshot!(texts.join(";\n"));
}

#[tokio::test]
async fn the_database_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", place.path().join("catalog.db").display());
    let world = World::open(&url).await;
    world.insert(&world.image("p1")).await;
    let files: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().collect();
    assert!(files.len() >= 2);
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
