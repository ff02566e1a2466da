//! A catalog moves out of SQLite into PostgreSQL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use calotype_catalog::{MovedTable, Options, Relocation, Step, TableProgress, relocate};
use calotype_core::image::Image;
use calotype_core::ports::{Jobs as _, Ledger as _, MasterKeys as _, Reconcile as _};
use calotype_core::{Error, ErrorKind, Result};
use uuid::Uuid;

use crate::engines::Server;
use crate::world::{LEASE, PickJob as _, StoppedClock, World, assert_kind, open};

/// A catalog in a file, with some of everything that the world can make.
struct Source {
    world: World,
    images: Vec<Image>,
    path: PathBuf,
    _place: tempfile::TempDir,
}

impl Source {
    async fn fill() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("catalog.db");
        let world = World::open(&format!("sqlite://{}", path.display())).await;
        world.catalog.catalog_id(Uuid::from_u128(7)).await.unwrap();
        let mut images = Vec::new();
        for (number, owner) in ["p1", "p1", "p2"].into_iter().enumerate() {
            images.push(world.active(owner, 100 + number as u64).await);
        }
        let mut tagged = world.image("p2");
        tagged.tags = vec!["a".to_owned(), "b=\u{e9}\u{1F600}".to_owned()];
        tagged
            .properties
            .insert("os_version".to_owned(), String::new());
        world.insert(&tagged).await;
        images.push(world.get(tagged.id).await);
        let replica = world.replica(&images[0], "p1");
        world
            .catalog
            .submit_replica(&replica, crate::world::trail())
            .await
            .unwrap();
        world.catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        Self {
            world,
            images,
            path,
            _place: place,
        }
    }

    async fn move_to(
        &self,
        url: &str,
        progress: impl FnMut(TableProgress) -> Result<()> + Send,
    ) -> Result<Vec<MovedTable>> {
        let order = Relocation {
            from: &self.path,
            to: url,
            options: Options::default(),
            clock: Arc::new(StoppedClock::default()),
            rows_at_once: 2,
        };
        relocate(order, progress).await
    }

    async fn assert_there(&self, url: &str) {
        let there = World::open(url).await;
        for image in &self.images {
            assert_eq!(there.get(image.id).await, *image);
        }
        there.assert_sound().await;
        let id = there.catalog.catalog_id(Uuid::from_u128(8)).await;
        assert_eq!(id.unwrap(), Uuid::from_u128(7), "it is the same catalog");
        // Lines that are written from now on come after those that came along.
        let before = there.catalog.audit_trail(None, None, 1).await.unwrap();
        let mut later = there.image("p9");
        later.id = Uuid::from_u128(0x9999).into();
        there.insert(&later).await;
        let after = there.catalog.audit_trail(None, None, 1).await.unwrap();
        assert!(after[0].0 > before[0].0);
        // Here nobody works on it any more.
        assert_kind(open(&self.world.url).await, ErrorKind::Internal);
    }
}

fn go_on(_: TableProgress) -> Result<()> {
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_moves_whole_and_is_worked_on_there_alone() {
    let server = Server::start().await;
    let source = Source::fill().await;
    let url = server.database("moves").await;
    let moved = source.move_to(&url, go_on).await.unwrap();
    let rows = |name: &str| moved.iter().find(|moved| moved.table == name).unwrap().rows;
    assert_eq!(rows("images"), 5);
    assert_eq!(rows("image_tags"), 2);
    assert_eq!(rows("jobs"), 1);
    source.assert_there(&url).await;
    assert_kind(source.move_to(&url, go_on).await, ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_broken_off_anywhere_goes_on_where_it_was() {
    let server = Server::start().await;
    let source = Source::fill().await;
    let url = server.database("broken_off").await;
    let mut tries = 0;
    let mut copied: BTreeMap<&str, u64> = BTreeMap::new();
    loop {
        tries += 1;
        let mut steps = 0;
        let broken = source
            .move_to(&url, |progress| {
                if progress.step == Step::Copy {
                    let before = copied.insert(progress.table, progress.done);
                    assert!(
                        before <= Some(progress.done),
                        "{progress:?} after {before:?}"
                    );
                }
                steps += 1;
                match steps {
                    // Farther with each try: the last ones are broken off while all is compared.
                    _ if steps > 3 * tries => Err(Error::internal("enough")),
                    _ => Ok(()),
                }
            })
            .await;
        match broken {
            Ok(_) => break,
            Err(_) => {
                assert_kind(open(&url).await, ErrorKind::Internal);
                open(&source.world.url).await.unwrap();
            }
        }
    }
    assert!(tries > 5);
    source.assert_there(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_changed_between_two_tries_is_there_too() {
    let server = Server::start().await;
    let mut source = Source::fill().await;
    let url = server.database("changed_between").await;
    let broken = source
        .move_to(&url, |progress| match progress.table {
            "project_usage" => Err(Error::conflict("enough")),
            _ => Ok(()),
        })
        .await;
    assert!(broken.is_err());
    // Rows before and after those that are there, and one that is there no more as it was.
    source.images.push(source.world.active("p3", 5).await);
    let first = source.images[0].id;
    source
        .world
        .catalog
        .mark_damaged(source.images[0].blob.unwrap())
        .await
        .unwrap();
    source.images[0] = source.world.get(first).await;
    let blob = source.images[0].blob;
    for image in &mut source.images {
        if image.blob == blob {
            *image = source.world.get(image.id).await;
        }
    }
    source.move_to(&url, go_on).await.unwrap();
    source.assert_there(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_a_catalog_or_gets_another_takes_none() {
    let server = Server::start().await;
    let (source, other) = (Source::fill().await, Source::fill().await);
    other
        .world
        .tamper("update catalog_facts set value = '00000000-0000-0000-0000-000000000009'")
        .await;
    let used = World::open(&server.database("used").await).await;
    used.active("p1", 1).await;
    assert_kind(source.move_to(&used.url, go_on).await, ErrorKind::Conflict);

    let url = server.database("arriving").await;
    let stop = |_| Err(Error::conflict("enough"));
    assert!(source.move_to(&url, stop).await.is_err());
    let refused = other.move_to(&url, go_on).await.unwrap_err();
    assert!(refused.message().contains("Another catalog"), "{refused:?}");
    source.move_to(&url, go_on).await.unwrap();
    let elsewhere = server.database("elsewhere").await;
    assert_kind(source.move_to(&elsewhere, go_on).await, ErrorKind::Conflict);
    assert_kind(
        source.move_to("sqlite://x", go_on).await,
        ErrorKind::InvalidRequest,
    );
}
