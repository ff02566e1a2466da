//! PostgreSQL goes away and comes back, and transactions get in each other's way.

use std::time::Duration;

use calotype_catalog::Options;
use calotype_core::ports::{Images as _, Jobs as _, Reconcile as _};

use crate::engines::Server;
use crate::world::{World, open, trail};

/// Bounds a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends every connection to the database but the one that says so.
const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and pid <> pg_backend_pid()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_whose_connections_were_cut_goes_on_and_hears_of_jobs_again() {
    let server = Server::start().await;
    let world = World::open(&server.database("cut").await).await;
    let node = open(&world.url).await.unwrap();
    let source = world.active("p1", 100).await;
    for round in 0..3 {
        world.tamper(CUT).await;
        // The first call may find its connection dead, and says that it can be tried again.
        let read = async {
            loop {
                match world.catalog.image(source.id, None).await {
                    Ok(found) => break found,
                    Err(error) => assert!(error.is_transient(), "{round}: {error:?}"),
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, read).await.unwrap();
        assert_eq!(found.unwrap().image.id, source.id);

        // What is said while nobody listens is lost, so the other node is told until it hears.
        let heard = async {
            loop {
                let bell = node.bell().notified();
                let replica = world.replica(&source, "p1");
                world
                    .catalog
                    .submit_replica(&replica, trail())
                    .await
                    .unwrap();
                if tokio::time::timeout(Duration::from_millis(500), bell)
                    .await
                    .is_ok()
                {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
    }
    world.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_loses_against_another_is_done_again_and_at_last_put_off() {
    let server = Server::start().await;
    let world = World::open(&server.database("contention").await).await;
    let source = world.active("p1", 100).await;
    // A sequence's steps are not undone with the transaction: the first so many jobs lose.
    world
        .tamper(
            "create sequence losses; \
             create function lose() returns trigger language plpgsql as $$ begin \
             if nextval('losses') <= 2 then \
             raise exception 'lost' using errcode = 'serialization_failure'; end if; \
             return new; end $$; \
             create trigger lose before insert on jobs for each row execute function lose()",
        )
        .await;
    let replica = world.replica(&source, "p1");
    let submitted = world.catalog.submit_replica(&replica, trail()).await;
    submitted.unwrap();
    assert!(world.catalog.job(&replica.job.id).await.unwrap().is_some());

    world
        .tamper("alter sequence losses minvalue -100 start with -100 restart")
        .await;
    let replica = world.replica(&source, "p1");
    let submitted = world.catalog.submit_replica(&replica, trail()).await;
    assert!(submitted.unwrap_err().is_transient());
    assert!(world.catalog.job(&replica.job.id).await.unwrap().is_none());
    assert!(world.find(replica.image.id).await.is_none());
    world.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_without_its_database_says_so_and_is_well_when_it_is_back() {
    let mut server = Server::start_own().await;
    let impatient = Options {
        acquire_timeout: Duration::from_secs(5),
        ..Options::default()
    };
    let world = World::open_with(&server.database("away").await, impatient).await;
    let image = world.active("p1", 100).await;
    for _ in 0..2 {
        server.crash();
        let ping = tokio::time::timeout(PATIENCE, world.catalog.ping()).await;
        let error = ping.unwrap().unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        server.start_again();
        let well = async {
            while let Err(error) = world.catalog.ping().await {
                assert!(error.is_transient(), "{error:?}");
            }
        };
        tokio::time::timeout(PATIENCE, well).await.unwrap();
        assert_eq!(world.get(image.id).await.id, image.id);
    }
}
