//! Times get and list at 1,000 and at 100,000 images in one project, on SQLite. Run it with
//! `cargo run --release -p calotype-catalog --example list_speed`.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use calotype_catalog::{Options, SqlCatalog};
use calotype_core::image::MemberStatus;
use calotype_core::ports::{Clock, Images as _};
use calotype_core::query::{
    Condition, Direction, ImageQuery, SortKey, Viewer, Visible, WantedMembership,
};
use calotype_core::time::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let (small, large) = (times(1_000).await?, times(100_000).await?);
    println!(
        "{:<34} {:>12} {:>12} {:>7}",
        "median", "1,000", "100,000", "ratio"
    );
    for ((shape, a), (_, b)) in small.iter().zip(&large) {
        let ratio = b.as_secs_f64() / a.as_secs_f64();
        println!("{shape:<34} {a:>12.1?} {b:>12.1?} {ratio:>7.2}");
    }
    Ok(())
}

async fn times(count: u32) -> Outcome<Vec<(&'static str, Duration)>> {
    let place = tempfile::tempdir()?;
    let path = place.path().join("catalog.db");
    let url = format!("sqlite://{}", path.display());
    let catalog = SqlCatalog::open(&url, Options::default(), Arc::new(Epoch)).await?;
    seed(&path, count).await?;
    let id = format!("00000000-0000-4000-8000-{:012}", count / 2).parse()?;
    let mut taken = vec![(
        "get",
        median(async || catalog.image(id, None).await.map(|_| ())).await?,
    )];
    let plain = ImageQuery {
        viewer: Viewer {
            project: Some("p1".parse()?),
            all_projects: false,
            enterprise_projects: None,
        },
        visible: Visible::Default,
        membership: WantedMembership::Is(MemberStatus::Accepted),
        conditions: vec![Condition::Hidden(false)],
        order: Vec::new(),
        marker: None,
        limit: 25,
    };
    let with = |condition| ImageQuery {
        conditions: vec![Condition::Hidden(false), condition],
        ..plain.clone()
    };
    let property = |name: &str| Condition::Property(name.to_owned(), "yes".to_owned());
    let sorted = ImageQuery {
        order: vec![(SortKey::Name, Direction::Ascending)],
        ..plain.clone()
    };
    let admin = |query: &ImageQuery| ImageQuery {
        viewer: Viewer {
            project: None,
            all_projects: true,
            enterprise_projects: None,
        },
        ..query.clone()
    };
    let name = with(Condition::Name(vec!["image-7".to_owned()]));
    let shapes = [
        ("list", plain.clone()),
        (
            "list, page in the middle",
            ImageQuery {
                marker: Some(id),
                ..plain.clone()
            },
        ),
        ("list by name", name.clone()),
        ("list sorted by name", sorted.clone()),
        (
            "list by a common tag",
            with(Condition::Tag("common".to_owned())),
        ),
        (
            "list by a rare tag",
            with(Condition::Tag("rare".to_owned())),
        ),
        ("list by a common property", with(property("common"))),
        ("list by a rare property", with(property("rare"))),
        ("list by id", with(Condition::Id(vec![id]))),
        ("list, administrator", admin(&plain)),
        ("list by name, administrator", admin(&name)),
        ("list sorted by name, administrator", admin(&sorted)),
        (
            "list by a rare property, admin.",
            admin(&with(property("rare"))),
        ),
    ];
    for (shape, query) in shapes {
        let once = async || catalog.list_images(&query).await.map(|_| ());
        taken.push((shape, median(once).await?));
    }
    Ok(taken)
}

async fn median(once: impl AsyncFn() -> calotype_core::Result<()>) -> Outcome<Duration> {
    let mut taken = Vec::new();
    for _ in 0..200 {
        let begin = Instant::now();
        once().await?;
        taken.push(begin.elapsed());
    }
    taken.sort();
    Ok(taken[taken.len() / 2])
}

/// Ten images have what is rare, each has what is common; one in ten is another project's and public.
async fn seed(path: &std::path::Path, count: u32) -> Outcome {
    let sql = format!(
        "begin;
        create temp table n as with recursive n(i) as \
            (select 1 union all select i + 1 from n where i < {count}) \
            select i, printf('00000000-0000-4000-8000-%012d', i) as id, \
            case when i % 10 = 0 then 'p2' else 'p1' end as owner, \
            case when i % 10 = 0 then 'public' else 'private' end as visibility, \
            case when i % 10 = 0 then 'public' end as shelf from n;
        insert into images (id, owner, status, visibility, name, name_key, min_disk, min_ram, \
            protected, hidden, enterprise_project, created_at, updated_at, version) \
            select id, owner, 'active', visibility, 'image-' || (i % ({count} / 10)), \
            'image-' || (i % ({count} / 10)), 0, 0, false, false, '0', i, i, 1 from n;
        insert into image_properties (image_id, name, value, owner, shelf, created_at) \
            select id, 'common', 'yes', owner, shelf, i from n;
        insert into image_properties (image_id, name, value, owner, shelf, created_at) \
            select id, 'rare', 'yes', owner, shelf, i from n where i % ({count} / 10) = 1;
        insert into image_tags (image_id, tag, owner, shelf, created_at) \
            select id, 'common', owner, shelf, i from n;
        insert into image_tags (image_id, tag, owner, shelf, created_at) \
            select id, 'rare', owner, shelf, i from n where i % ({count} / 10) = 1;
        commit;"
    );
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}
