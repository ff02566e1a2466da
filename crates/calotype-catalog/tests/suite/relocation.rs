//! A catalog moves out of SQLite into PostgreSQL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calotype_catalog::{
    MovedTable, Options, Progress, Relocation, follow, relocate, stop_following,
};
use calotype_core::image::Image;
use calotype_core::ports::{Images as _, Jobs as _, Ledger as _, MasterKeys as _, Reconcile as _};
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

    fn order<'a>(&'a self, url: &'a str) -> Relocation<'a> {
        Relocation {
            from: &self.path,
            to: url,
            options: Options::default(),
            clock: Arc::new(StoppedClock::default()),
            rows_at_once: 2,
        }
    }

    async fn move_to(
        &self,
        url: &str,
        progress: impl FnMut(Progress) -> Result<()> + Send,
    ) -> Result<Vec<MovedTable>> {
        relocate(self.order(url), progress).await
    }

    /// Ends a move of which all was copied before.
    async fn end_move_to(&mut self, url: &str) {
        for image in &mut self.images {
            *image = self.world.get(image.id).await;
        }
        let moved = self.move_to(url, |progress| match progress {
            Progress::Compared(_) => Ok(()),
            other => Err(Error::internal(format!("{other:?}: it was copied before"))),
        });
        moved.await.unwrap();
        self.assert_there(url).await;
    }

    /// Works on the catalog: an image comes, the one before it goes, and others change.
    async fn work(&self, number: u64) -> Image {
        let catalog = &self.world.catalog;
        let gone = self.world.active("p4", 7000 + number).await;
        let mut come = self.world.image("p4");
        come.tags = vec![format!("tag-{number}")];
        self.world.insert(&come).await;
        let deleted = catalog.delete_image(&gone, Duration::ZERO, crate::world::trail());
        deleted.await.unwrap();
        let blob = self.images[0].blob.unwrap();
        match number % 2 {
            0 => catalog.mark_damaged(blob).await.unwrap(),
            _ => catalog.clear_damage(blob).await.unwrap(),
        }
        self.world.get(come.id).await
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

fn go_on(_: Progress) -> Result<()> {
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
                if let Progress::Copied(now) = progress {
                    let before = copied.insert(now.table, now.done);
                    assert!(before <= Some(now.done), "{now:?} after {before:?}");
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
        .move_to(&url, |progress| match progress {
            Progress::Copied(now) if now.table == "project_usage" => Err(Error::conflict("enough")),
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

/// What is done in the middle of something that does not wait.
fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_worked_on_meanwhile_is_copied_with_all_that_changes() {
    let server = Server::start().await;
    let mut source = Source::fill().await;
    let url = server.database("worked_on").await;
    let (work, copied) = (Mutex::new(0), Mutex::new(0));
    let work = || {
        let mut number = work.lock().unwrap();
        *number += 1;
        now(source.work(*number))
    };
    let images = Mutex::new(Vec::new());
    let while_copying = |_| {
        *copied.lock().unwrap() += 1;
        images.lock().unwrap().push(work());
        Ok(())
    };
    let mut rounds = 0;
    let stopped = |changed| {
        rounds += 1;
        assert_eq!(changed > 0, rounds > 1, "round {rounds}");
        images.lock().unwrap().push(work());
        Ok(rounds == 6)
    };
    follow(&source.order(&url), while_copying, stopped)
        .await
        .unwrap();
    assert!(*copied.lock().unwrap() > 27, "every table");
    let mut made = images.into_inner().unwrap();
    source.images.append(&mut made);
    // Nobody works on a copy that is not whole.
    assert_kind(open(&url).await, ErrorKind::Internal);
    source.end_move_to(&url).await;
    let left = "select count(*) from sqlite_schema where name like 'catalog_changes%'";
    assert_eq!(source.world.number(left).await, 0);
    let late = "select count(*) from pg_constraint where condeferrable";
    assert_eq!(World::open(&url).await.number(late).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying_what_is_worked_on_goes_on_wherever_it_was_broken_off() {
    let server = Server::start().await;
    let mut source = Source::fill().await;
    let url = server.database("followed_in_parts").await;
    let (mut tries, mut made) = (0, Vec::new());
    loop {
        tries += 1;
        let mut steps = 0;
        let progress = |_| {
            steps += 1;
            match steps {
                _ if steps > 2 * tries => Err(Error::internal("enough")),
                _ => Ok(()),
            }
        };
        let stopped = |_| match tries % 3 {
            0 => Ok(true),
            _ => Err(Error::internal("enough")),
        };
        let followed = follow(&source.order(&url), progress, stopped).await;
        made.push(source.work(tries).await);
        if followed.is_ok() {
            break;
        }
    }
    assert!(tries > 5);
    follow(&source.order(&url), go_on, |_| Ok(true))
        .await
        .unwrap();
    source.images.append(&mut made);
    source.end_move_to(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_died_between_its_last_two_steps_goes_on() {
    let server = Server::start().await;
    let mut source = Source::fill().await;
    let url = server.database("last_steps").await;
    let follow_it = async |source: &Source| {
        let followed = follow(&source.order(&url), go_on, |_| Ok(true)).await;
        followed.unwrap();
    };
    follow_it(&source).await;
    // The one is marked as left, with its notes gone, and the other is not opened.
    stop_following(&source.order(&url)).await.unwrap();
    let left = "insert into catalog_moves (state, catalog) select 'left', value from catalog_facts where name = 'id'";
    source.world.tamper(left).await;
    assert_kind(open(&url).await, ErrorKind::Internal);
    assert_kind(open(&source.world.url).await, ErrorKind::Internal);
    follow_it(&source).await;
    source.end_move_to(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unique_may_go_from_row_to_row_meanwhile() {
    let server = Server::start().await;
    let mut source = Source::fill().await;
    let url = server.database("unique").await;
    source
        .world
        .tamper(
            "insert into domains (id, name, enabled) values ('d8', 'a', true), ('d9', 'b', true)",
        )
        .await;
    let mut rounds = 0;
    let stopped = |_| {
        rounds += 1;
        if rounds == 1 {
            now(source.world.tamper(
                "update domains set name = 'c' where id = 'd8'; \
                 update domains set name = 'a' where id = 'd9'; \
                 update domains set name = 'b' where id = 'd8'",
            ));
        }
        Ok(rounds == 3)
    };
    follow(&source.order(&url), go_on, stopped).await.unwrap();
    source.end_move_to(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_given_up_leaves_the_catalog_as_it_was() {
    let server = Server::start().await;
    let source = Source::fill().await;
    let url = server.database("given_up").await;
    let enough = |_| Err(Error::internal("enough"));
    assert!(follow(&source.order(&url), go_on, enough).await.is_err());
    let notes = "select count(*) from sqlite_schema where name like 'catalog_changes%'";
    assert_eq!(source.world.number(notes).await, 1 + 4 * 27);
    stop_following(&source.order(&url)).await.unwrap();
    assert_eq!(source.world.number(notes).await, 0);
    source.work(1).await;
    open(&source.world.url).await.unwrap();
    // A service of another version is not followed: its schema is not this program's to change.
    let older = "delete from schema_migrations where version > 12";
    source.world.tamper(older).await;
    let refused = follow(&source.order(&url), go_on, |_| Ok(true)).await;
    assert_kind(refused, ErrorKind::Conflict);
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
