//! The schema.

use std::path::Path;

use calotype_core::ErrorKind;
use calotype_core::job::Work;
use calotype_core::ports::{Directory as _, Images as _, Jobs as _, Quotas as _, Reconcile as _};
use sqlx::{Connection as _, Row as _};

use crate::quotas::{limit, needing};
use crate::world::{LEASE, PickJob as _, World, assert_kind, open, project, trail};

pub(crate) async fn a_newer_schema_is_refused(world: World) {
    let later =
        "insert into schema_migrations (version, name, applied_at) values (999, 'later', 0)";
    world.tamper(later).await;
    assert_kind(open(&world.url).await, ErrorKind::Internal);
}

pub(crate) async fn a_newer_schema_is_taken_where_it_says_that_this_version_can_work_with_it(
    world: World,
) {
    let image = world.active("p1", 100).await;
    let sql = "insert into schema_migrations (version, name, applied_at, compatible_from) \
               select 999, 'later', 0, max(version) from schema_migrations";
    world.tamper(sql).await;
    let catalog = open(&world.url).await.unwrap();
    assert!(catalog.image(image.id, None).await.unwrap().is_some());
    let sql = "update schema_migrations set compatible_from = compatible_from + 1 \
               where version = 999";
    world.tamper(sql).await;
    assert_kind(open(&world.url).await, ErrorKind::Internal);
}

/// A database as the first version made it, with what these statements write.
async fn catalog_of_the_first_version(path: &Path, filled: &str) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let mut c = sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap();
    let first = include_str!("../../migrations/0001_foundation.sql")
        .replace("{text}", "text")
        .replace("{blob}", "blob")
        .replace("{serial}", "integer primary key autoincrement");
    for sql in [first.as_str(), filled] {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut c).await.unwrap();
    }
    c
}

#[tokio::test]
async fn a_catalog_of_the_first_version_is_brought_up_to_date_with_what_is_in_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("catalog.db");
    let filled = "create table schema_migrations \
        (version bigint not null primary key, name text not null, applied_at bigint not null); \
        insert into schema_migrations values (1, 'foundation', 0); \
        insert into domains values ('default', 'Default', true); \
        insert into users values ('u1', 'default', 'ada', null, null, true); \
        insert into access_keys values ('AK1', x'00', 'u1', null, true, 1); \
        insert into jobs (id, project, user_id, job_type, status, done_bytes, total_bytes, attempt, \
        due_at, cancelled, created_at, ended_at) values ('00000000000000000000000000000001', 'p1', \
        'u1', 'imsCopyImageInRegionJob', 'SUCCESS', 0, 0, 1, 1, false, 1, 1)";
    let mut c = catalog_of_the_first_version(&path, filled).await;
    let catalog = open(&format!("sqlite://{}", path.display())).await.unwrap();
    let key = catalog.access_key("AK1").await.unwrap();
    assert_eq!(key.unwrap().user.as_str(), "u1");
    let job = "00000000000000000000000000000001".parse().unwrap();
    let job = catalog.job(&job).await.unwrap().unwrap();
    assert_eq!(job.attempt, 1);
    let sql = "select deaths from jobs";
    let row = sqlx::query(sql).fetch_one(&mut c).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_replication_that_an_earlier_version_accepted_is_gone_on_with() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", place.path().join("catalog.db").display());
    let world = World::open(&url).await;
    let source = world.active("p1", 100).await;
    let (shared, resealed) = (
        world.replica(&source, "p1"),
        world.resealed_replica(&source, "p1"),
    );
    for replica in [&shared, &resealed] {
        world
            .catalog
            .submit_replica(replica, trail())
            .await
            .unwrap();
    }
    // As the version before left them: how the replica gets its bytes alone, and not even that where it shares them.
    let bytes = serde_json::to_string(&resealed.replication.bytes).unwrap();
    let filters = [
        "cmk_id",
        "enterprise_project",
        "min_disk",
        "min_ram",
        "disk_format",
    ]
    .into_iter()
    .chain(["container_format", "status", "protected"])
    .map(|column| {
        format!("drop index images_by_owner_{column}; drop index images_by_shelf_{column};")
    });
    let filters: String = filters.collect();
    let of_all = [
        (
            "images_of_all",
            "images_by_creation on images (created_at, id)",
        ),
        (
            "images_of_all_by_name",
            "images_by_name on images (name_key, created_at, id)",
        ),
        (
            "image_tags_of_all",
            "image_tags_by_tag on image_tags (tag, created_at, image_id)",
        ),
        (
            "image_properties_of_all",
            "image_properties_by_value on image_properties (name, value, created_at, image_id)",
        ),
        (
            "images_by_owner_kind",
            "images_by_owner_visibility on images (owner, visibility, created_at, id)",
        ),
        (
            "images_by_kind",
            "images_by_visibility on images (visibility, created_at, id)",
        ),
    ];
    let of_all = of_all.map(|(new, old)| format!("drop index {new}; create index {old};"));
    let of_all = of_all.concat();
    let back = format!(
        "drop index jobs_queued; drop index jobs_leased; create index jobs_unfinished_by_project on jobs (project); \
         drop index blobs_by_scrub; drop index blobs_damaged; alter table blobs drop column scrubbed_at; drop index blobs_by_store; alter table blobs drop column store; alter table blobs drop column place; drop table blob_copies; drop table leases; drop table catalog_moves; drop table catalog_copies; alter table schema_migrations drop column compatible_from; {filters} drop index images_by_owner_size; drop index images_by_owner_update; drop index images_by_shelf_size; drop index images_by_shelf_update; drop index image_members_by_project_id; drop index images_by_owner_own_id; drop index images_by_shelf_own_id; {of_all} \
          drop table enterprise_assignments; drop table project_limits; drop index blobs_by_reservation; \
         alter table blobs drop column reserved; alter table blobs drop column reserved_for; \
         alter table project_usage drop column reserved; \
         alter table project_usage drop column blob_bytes; drop index jobs_by_parent; alter table jobs drop column parent; \
         alter table jobs drop column results; alter table jobs rename column work to replica_bytes; \
         update jobs set replica_bytes = null; \
         update jobs set replica_bytes = '{bytes}' where target_blob is not null; \
         delete from schema_migrations where version >= 6"
    );
    world.tamper(back).await;
    let catalog = open(&url).await.unwrap();
    for replica in [shared, resealed] {
        let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        assert_eq!(claim.job.id, replica.job.id);
        assert_eq!(claim.work, Work::Replicate(replica.replication));
    }
    assert_eq!(catalog.violations().await.unwrap(), []);
}

#[tokio::test]
async fn what_projects_have_is_counted_when_a_catalog_of_the_first_version_is_brought_up_to_date() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("catalog.db");
    // Two images that share a blob, one that is uploaded, and one that a replication will make share it.
    let blob = |n| format!("11111111-0000-4000-8000-00000000000{n}");
    let filled = format!(
        "create table schema_migrations \
        (version bigint not null primary key, name text not null, applied_at bigint not null); \
        insert into schema_migrations values (1, 'foundation', 0); \
        insert into blobs (id, state, size, stored) values ('{stored}', 'stored', 5, 9); \
        insert into blobs (id, state, lease_expires) values ('{writing}', 'writing', 1); \
        insert into images (id, owner, status, size, blob, uploading_blob, visibility, name_key, \
        min_disk, min_ram, protected, hidden, enterprise_project, created_at, updated_at, version) \
        select v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, \
        'private', '', 0, 0, false, false, '0', 0, 0, 1 from (values \
        ('22222222-0000-4000-8000-000000000001', 'p1', 'active', 5, '{stored}', null), \
        ('22222222-0000-4000-8000-000000000002', 'p1', 'active', 5, '{stored}', null), \
        ('22222222-0000-4000-8000-000000000003', 'p1', 'saving', null, null, '{writing}'), \
        ('22222222-0000-4000-8000-000000000004', 'p2', 'queued', null, null, null)) as v; \
        insert into jobs (id, project, user_id, job_type, status, image_id, blob, done_bytes, \
        total_bytes, attempt, due_at, cancelled, created_at) values \
        ('00000000000000000000000000000001', 'p2', 'u1', 'imsCopyImageInRegionJob', 'INIT', \
        '22222222-0000-4000-8000-000000000004', '{stored}', 0, 0, 0, 1, false, 1); \
        insert into project_usage values ('p1', 3, 10), ('p2', 1, 0)",
        stored = blob(1),
        writing = blob(2),
    );
    catalog_of_the_first_version(&path, &filled).await;
    let catalog = open(&format!("sqlite://{}", path.display())).await.unwrap();
    for (name, images, bytes) in [("p1", 3, 10), ("p2", 1, 5)] {
        let usage = catalog.usage(&project(name)).await.unwrap();
        assert_eq!((usage.images, usage.bytes.bytes()), (images, bytes));
        assert_eq!((usage.blob_bytes.bytes(), usage.reserved.bytes()), (5, 0));
    }
    assert_eq!(catalog.violations().await.unwrap(), []);
    let image = "22222222-0000-4000-8000-000000000003".parse().unwrap();
    let reserved = catalog.reserve(blob(2).parse().unwrap(), needing(7, limit(20)));
    assert_eq!(reserved.await.unwrap().bytes(), 7);
    let ended = catalog.abort_upload(image, blob(2).parse().unwrap());
    assert!(ended.await.unwrap());
    assert_eq!(catalog.violations().await.unwrap(), []);
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
