//! PostgreSQL with a great many rows: no call reads a large table from end to end, or more of an index than it answers.
//!
//! What a call has read is asked of PostgreSQL's own counters. They are told when a connection ends, so each call has a catalog of
//! its own. `CALOTYPE_ROWS=10000000 cargo xtask test --once --profile rows -E 'test(/^scale::/)'` looks at as many rows as you like.

use std::collections::BTreeMap;

use calotype_catalog::SqlCatalog;
use calotype_core::id::BlobId;
use calotype_core::image::{ImageStatus, MemberStatus, Visibility};
use calotype_core::job::{JobFamily, JobStatus};
use calotype_core::ports::{
    ImageLimit, Images as _, Jobs as _, Ledger as _, Quotas as _, Reconcile as _,
};
use calotype_core::query::{
    Comparison, Condition, Direction, ImageQuery, SortKey, Viewer, Visible, WantedMembership,
};
use calotype_core::time::Timestamp;
use sqlx::{Connection as _, Row as _};

use crate::engines::Server;
use crate::world::{LEASE, PickJob as _, World, open, project, trail};

/// The tables that grow without bound.
const LARGE: [&str; 8] = [
    "images",
    "image_tags",
    "image_properties",
    "image_members",
    "blobs",
    "jobs",
    "audit_events",
    "burnt_image_ids",
];

/// How many rows of a large table, or entries of its indexes, a call may read that answers with 25 at most: of each branch of
/// a list a page, of each step of a purge a thousand.
const MOST: i64 = 6000;

/// How many pages of its indexes: four or five to find a row, and of a long queue the first of each project.
const MOST_PAGES: i64 = 3000;

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told so how long to look"
)]
fn rows() -> u64 {
    let rows = std::env::var("CALOTYPE_ROWS").ok();
    rows.map_or(30_000, |rows| rows.parse().expect("a number"))
}

/// A thousand projects with as many images each, all tagged, half of them shared, and the oldest third public; a job of each
/// image that has ended.
async fn fill(world: &World) {
    let rows = rows();
    let public = format!("n <= {}", rows / 3);
    let id = "'10000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0')";
    let series = format!("from generate_series(1, {rows}) as n");
    let statements = [
        format!(
            "insert into blobs (id, state, size, stored) \
             select {id}, 'stored', 1000, 500 {series}"
        ),
        format!(
            "insert into images (id, owner, status, visibility, name, name_key, disk_format, \
             container_format, min_disk, min_ram, protected, hidden, size, blob, \
             enterprise_project, created_at, updated_at, active_at, version) \
             select {id}, 'p' || (n % 1000), 'active', \
             case when {public} then 'public' else 'private' end, 'image-' || n, \
             'image-' || n, 'qcow2', 'bare', 1, 512, false, false, 1000, {id}, '0', \
             1700000000000000 + n, 1700000000000000 + n, 1700000000000000 + n, 1 {series}"
        ),
        format!(
            "insert into image_tags (image_id, tag, owner, shelf, created_at) \
             select {id}, 'tag-' || (n % 7), 'p' || (n % 1000), \
             case when {public} then 'public' end, 1700000000000000 + n {series}"
        ),
        format!(
            "insert into image_properties (image_id, name, value, owner, shelf, created_at) \
             select {id}, 'os', 'v' || (n % 7), 'p' || (n % 1000), \
             case when {public} then 'public' end, 1700000000000000 + n {series}"
        ),
        format!(
            "insert into image_members (image_id, project, status, created_at, updated_at, \
             image_created_at) select {id}, 'p' || ((n + 1) % 1000), 'accepted', 1, 1, \
             1700000000000000 + n {series} where n % 2 = 1"
        ),
        format!(
            "insert into jobs (id, project, user_id, job_type, status, image_id, done_bytes, \
             total_bytes, attempt, due_at, cancelled, created_at, ended_at) \
             select '1' || lpad(to_hex(n), 31, '0'), 'p' || (n % 1000), 'u1', \
             'imsCopyImageInRegionJob', 'SUCCESS', {id}, 0, 0, 1, 0, false, 1700000000000000 + n, \
             cast(extract(epoch from now()) * 1000000 as bigint) {series}"
        ),
        format!(
            "insert into audit_events (at, trace, request_id, project, user_id, resource_type, \
             resource_id, detail) select cast(extract(epoch from now()) * 1000000 as bigint), \
             'createImage', 'r', 'p' || (n % 1000), 'u1', 'image', {id}, '{{}}' {series}"
        ),
        format!(
            "insert into burnt_image_ids (id, burnt_at) \
             select 'ffffffff' || substr({id}, 9), 1 {series}"
        ),
        "insert into project_usage (project, images, bytes, blob_bytes) \
         select 'p' || n, 1000, 1000000, 1000000 from generate_series(0, 999) as n"
            .to_owned(),
    ];
    write(world, &LARGE, statements).await;
}

/// Writes a great many rows of these tables: without their indexes, which are made again afterwards as they were.
async fn write(world: &World, tables: &[&str], statements: impl IntoIterator<Item = String>) {
    let tables = tables.join("', '");
    let drop = format!(
        "create table dropped as select i.indexrelid::regclass::text as name, \
                pg_get_indexdef(i.indexrelid) as made from pg_index i join pg_class t \
                on t.oid = i.indrelid where t.relname in ('{tables}') \
                and not exists (select from pg_constraint c where c.conindid = i.indexrelid); \
                do $$ declare name text; begin for name in select d.name from dropped d loop \
                execute 'drop index ' || name; end loop; end $$"
    );
    let make = "set maintenance_work_mem = '512MB'; do $$ declare made text; begin \
                for made in select d.made from dropped d loop execute made; end loop; end $$; \
                drop table dropped";
    world.tamper(drop).await;
    for sql in statements {
        // What they refer to is there.
        let unasked = format!("set session_replication_role = replica; {sql}");
        world.tamper(unasked).await;
    }
    world.tamper(make.to_owned()).await;
    world.tamper("vacuum analyze".to_owned()).await;
}

/// What has been read of each large table since the counters were set back: rows off its end-to-end reads, entries of its indexes,
/// and pages of these, which are more where entries were read that were of no use.
async fn read_of(url: &str) -> BTreeMap<String, [i64; 3]> {
    let mut c = sqlx::PgConnection::connect(url).await.unwrap();
    let sql = "select cast(t.relname as text) as name, t.seq_tup_read as scanned, \
               coalesce((select cast(sum(i.idx_tup_read) as bigint) from pg_stat_user_indexes i \
               where i.relid = t.relid), 0) as sought, \
               coalesce(s.idx_blks_read + s.idx_blks_hit, 0) as pages \
               from pg_stat_user_tables t join pg_statio_user_tables s on s.relid = t.relid";
    let rows = sqlx::query(sql).fetch_all(&mut c).await.unwrap();
    let of = |row: &sqlx::postgres::PgRow| {
        let read = [row.get("scanned"), row.get("sought"), row.get("pages")];
        (row.get("name"), read)
    };
    rows.iter().map(of).collect()
}

/// Waits until no catalog is connected: then all of them have told what they read.
async fn until_told(world: &World) {
    let mut c = sqlx::PgConnection::connect(&world.url).await.unwrap();
    let sql = "select count(*) from pg_stat_activity where datname = current_database() \
               and application_name = 'calotype'";
    while sqlx::query_scalar::<_, i64>(sql)
        .fetch_one(&mut c)
        .await
        .unwrap()
        > 0
    {
        tokio::task::yield_now().await;
    }
}

/// Makes a call, and judges what it has read.
async fn judge(
    world: &World,
    what: &str,
    wrong: &mut Vec<String>,
    call: impl AsyncFnOnce(&SqlCatalog),
) {
    let catalog = open(&world.url).await.unwrap();
    let before = read_of(&world.url).await;
    call(&catalog).await;
    catalog.close().await;
    drop(catalog);
    until_told(world).await;
    let after = read_of(&world.url).await;
    for table in LARGE {
        let [scanned, sought, pages] = std::array::from_fn(|n| after[table][n] - before[table][n]);
        if scanned > 0 || sought > MOST || pages > MOST_PAGES {
            wrong.push(format!(
                "{what}: {scanned} rows of {table} end to end, {sought} entries and {pages} pages of its indexes"
            ));
        }
    }
}

fn first_page() -> ImageQuery {
    ImageQuery {
        viewer: Viewer {
            project: Some(project("p7")),
            all_projects: false,
            enterprise_projects: None,
        },
        visible: Visible::Default,
        membership: WantedMembership::Is(MemberStatus::Accepted),
        conditions: vec![Condition::Hidden(false)],
        order: Vec::new(),
        marker: None,
        limit: 25,
    }
}

/// The lists that clients ask for.
fn lists() -> Vec<(String, ImageQuery)> {
    let with = |condition: Condition| {
        let mut query = first_page();
        query.conditions.push(condition);
        query
    };
    let mut lists = vec![
        ("all".to_owned(), first_page()),
        (
            "by tag".to_owned(),
            with(Condition::Tag("tag-3".to_owned())),
        ),
        (
            "by a tag that none has".to_owned(),
            with(Condition::Tag("none".to_owned())),
        ),
        (
            "by property".to_owned(),
            with(Condition::Property("os".to_owned(), "v3".to_owned())),
        ),
        (
            "by name".to_owned(),
            with(Condition::Name(vec!["image-7".to_owned()])),
        ),
        (
            "by status".to_owned(),
            with(Condition::Status(vec![ImageStatus::Queued])),
        ),
        ("by memory".to_owned(), with(Condition::MinRam(7))),
        (
            "public".to_owned(),
            ImageQuery {
                visible: Visible::Only(Visibility::Public),
                ..first_page()
            },
        ),
        (
            "shared".to_owned(),
            ImageQuery {
                visible: Visible::Only(Visibility::Shared),
                ..first_page()
            },
        ),
    ];
    let of_all = |conditions| ImageQuery {
        viewer: Viewer {
            project: None,
            all_projects: true,
            enterprise_projects: None,
        },
        visible: Visible::All,
        conditions,
        ..first_page()
    };
    lists.extend([
        ("of all projects".to_owned(), of_all(Vec::new())),
        (
            "of all projects by owner".to_owned(),
            of_all(vec![Condition::Owner(project("p7"))]),
        ),
        (
            "of all projects by visibility".to_owned(),
            of_all(vec![Condition::Visibility(Visibility::Shared)]),
        ),
        (
            "public by owner".to_owned(),
            with(Condition::Owner(project("p9"))),
        ),
        (
            "another's, by change".to_owned(),
            ImageQuery {
                conditions: vec![
                    Condition::Owner(project("p1")),
                    Condition::UpdatedAt(Comparison::Greater, Timestamp::from_micros(1)),
                ],
                ..first_page()
            },
        ),
    ]);
    for key in [
        SortKey::Id,
        SortKey::Name,
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
        SortKey::Size,
        SortKey::Status,
        SortKey::DiskFormat,
        SortKey::ContainerFormat,
        SortKey::MinDisk,
        SortKey::MinRam,
    ] {
        let query = ImageQuery {
            order: vec![(key, Direction::Descending)],
            ..first_page()
        };
        lists.push((format!("by {key:?}"), query));
    }
    lists
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_reads_more_of_a_great_many_rows_than_it_answers() {
    let server = Server::start().await;
    let world = World::open(&server.database("scale").await).await;
    fill(&world).await;
    world.catalog.close().await;
    // What reads everything, for it proves something of everything, is seen to do so.
    let mut seen = Vec::new();
    judge(&world, "verification", &mut seen, async |catalog| {
        catalog.violations().await.unwrap();
    })
    .await;
    assert!(!seen.is_empty());
    let mut wrong = Vec::new();
    for (name, query) in lists() {
        judge(
            &world,
            &format!("list {name}"),
            &mut wrong,
            async |catalog| {
                catalog.list_images(&query).await.unwrap();
            },
        )
        .await;
    }
    let image = "10000000-0000-4000-8000-000000000064".parse().unwrap();
    let blob: BlobId = "10000000-0000-4000-8000-000000000064".parse().unwrap();
    let job = format!("1{:031x}", 100).parse().unwrap();
    let p7 = project("p7");
    judge(&world, "get", &mut wrong, async |catalog| {
        catalog.image(image, Some(&p7)).await.unwrap().unwrap();
    })
    .await;
    judge(&world, "members", &mut wrong, async |catalog| {
        catalog.members(image).await.unwrap();
    })
    .await;
    judge(&world, "job", &mut wrong, async |catalog| {
        catalog.job(&job).await.unwrap().unwrap();
    })
    .await;
    for status in [None, Some(JobStatus::Fail)] {
        judge(&world, "list jobs", &mut wrong, async |catalog| {
            catalog.list_jobs(&p7, status, None, 25).await.unwrap();
        })
        .await;
    }
    judge(&world, "unfinished jobs", &mut wrong, async |catalog| {
        catalog.unfinished_jobs().await.unwrap();
    })
    .await;
    judge(&world, "room", &mut wrong, async |catalog| {
        let limit = Some(ImageLimit(5000));
        let room = catalog.check_room(&p7, limit, JobFamily::Replication, 10);
        room.await.unwrap();
        catalog.usage(&p7).await.unwrap();
        catalog.quota(&p7).await.unwrap();
    })
    .await;
    judge(&world, "audit trail", &mut wrong, async |catalog| {
        catalog.audit_trail(Some(&p7), None, 25).await.unwrap();
        catalog.audit_trail(None, None, 25).await.unwrap();
    })
    .await;
    judge(&world, "scrubbing", &mut wrong, async |catalog| {
        let late = Timestamp::from_micros(i64::MAX);
        let due = catalog.due_for_scrub(late, None, 100).await.unwrap();
        catalog.due_for_scrub(late, due.last(), 100).await.unwrap();
        catalog.unread_since().await.unwrap();
        catalog.note_scrub(blob).await.unwrap();
        catalog.damaged_blobs().await.unwrap();
    })
    .await;
    judge(
        &world,
        "a round of the reconciler",
        &mut wrong,
        async |catalog| {
            catalog.expire_uploads().await.unwrap();
            catalog.deletable_blobs(None, 500).await.unwrap();
            catalog.purge_expired().await.unwrap();
            catalog.blobs(Some(blob), 500).await.unwrap();
        },
    )
    .await;
    judge(
        &world,
        "a replication, from its request to its end",
        &mut wrong,
        async |catalog| {
            let found = catalog.image(image, None).await.unwrap().unwrap();
            let replica = world.replica(&found.image, "p7");
            catalog.submit_replica(&replica, trail()).await.unwrap();
            let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
            catalog
                .finish_share(&claim.job.id, claim.attempt)
                .await
                .unwrap();
        },
    )
    .await;
    judge(
        &world,
        "a deletion, from its request to its end",
        &mut wrong,
        async |catalog| {
            let other = "10000000-0000-4000-8000-000000000065".parse().unwrap();
            let found = catalog.image(other, None).await.unwrap().unwrap();
            let grace = std::time::Duration::ZERO;
            catalog
                .delete_image(&found.image, grace, trail())
                .await
                .unwrap();
            for (blob, _) in catalog.deletable_blobs(None, 500).await.unwrap() {
                assert!(catalog.claim_deletion(blob).await.unwrap());
                catalog.forget_blob(blob).await.unwrap();
            }
        },
    )
    .await;
    let catalog = open(&world.url).await.unwrap();
    let found = catalog.image(image, None).await.unwrap().unwrap();
    let first = world.replica(&found.image, "queued");
    catalog.submit_replica(&first, trail()).await.unwrap();
    catalog.close().await;
    queue(&world, first.job.id.as_str()).await;
    for _ in 0..3 {
        judge(
            &world,
            "a pick out of a long queue",
            &mut wrong,
            async |catalog| {
                let claim = catalog.pick_job("w1", LEASE).await.unwrap();
                assert!(claim.is_some());
            },
        )
        .await;
    }
    with_one_plan_for_all(&world, &mut wrong).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lists for somebody who has nothing where one project has all, by plans that PostgreSQL makes for anybody's: by its statistics
/// every owner has all images then.
async fn with_one_plan_for_all(world: &World, wrong: &mut Vec<String>) {
    let tables = ["images", "image_tags", "image_properties"];
    let one = tables.map(|table| format!("update {table} set owner = 'p1'"));
    write(world, &tables, one).await;
    let plans = "do $$ begin execute format('alter database %I set plan_cache_mode = \
                 ''force_generic_plan''', current_database()); end $$";
    world.tamper(plans.to_owned()).await;
    let each = lists().into_iter().flat_map(|(name, query)| {
        let private = ImageQuery {
            visible: Visible::Only(Visibility::Private),
            ..query.clone()
        };
        [(format!("{name}, private"), private), (name, query)]
    });
    for (name, query) in each {
        let call = async |catalog: &SqlCatalog| {
            catalog.list_images(&query).await.unwrap();
        };
        judge(world, &format!("list {name}, by one plan"), wrong, call).await;
    }
}

/// As many jobs like this one as there are rows, of one project and of a hundred others.
async fn queue(world: &World, job: &str) {
    let rows = rows();
    let id = "'2' || lpad(to_hex(n), 31, '0')";
    let project = "case when n % 100 = 0 then 'q' || (n % 10000) else 'queued' end";
    let sql = format!(
        "insert into jobs select made.* from jobs of, generate_series(1, {rows}) as n, \
         lateral jsonb_populate_record(of, jsonb_build_object('id', {id}, 'project', {project})) \
         as made where of.id = '{job}'"
    );
    write(world, &["jobs"], [sql]).await;
}
