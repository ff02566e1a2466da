//! Many nodes on one PostgreSQL: whose time holds, and who does what is done by one.

use std::time::Duration;

use calotype_catalog::Options;
use calotype_core::ports::Reconcile as _;

use crate::engines::Server;
use crate::world::{World, open};

const LEASE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_is_the_databases_whatever_the_nodes_clock_says() {
    let server = Server::start().await;
    // Opened with a clock that stands still, years ago.
    let world = World::open(&server.database("time").await).await;
    let before = world.now().await;
    let told = world.catalog.clock().now();
    let after = world.now().await;
    let slack = Duration::from_secs(1);
    assert!(
        before.minus(slack) <= told && told <= after.plus(slack),
        "{before:?} {told:?} {after:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_one_nodes_until_it_ends_or_is_given_up() {
    let server = Server::start().await;
    let world = World::open(&server.database("leases").await).await;
    let (first, second) = (&world.catalog, open(&world.url).await.unwrap());
    let hold = async |catalog: &calotype_catalog::SqlCatalog, holder: &str| {
        catalog.hold_lease("rounds", holder, LEASE).await.unwrap()
    };
    assert!(hold(first, "a").await);
    assert!(!hold(&second, "b").await);
    assert!(hold(first, "a").await, "it is extended by who has it");
    assert!(second.hold_lease("other", "b", LEASE).await.unwrap());

    world
        .tamper("update leases set expires_at = 1 where name = 'rounds'")
        .await;
    assert!(hold(&second, "b").await, "it has ended");
    assert!(!hold(first, "a").await);
    first.release_lease("rounds", "a").await.unwrap();
    assert!(!hold(first, "a").await, "only who has it gives it up");
    second.release_lease("rounds", "b").await.unwrap();
    assert!(hold(first, "a").await);

    // As a clock left it that was a day ahead until the database failed over to a right one.
    world
        .tamper("update leases set expires_at = expires_at + 86400000000 where name = 'rounds'")
        .await;
    assert!(hold(&second, "b").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_want_a_lease_at_once_one_gets_it() {
    let server = Server::start().await;
    let world = World::open(&server.database("lease_race").await).await;
    for round in 0..20 {
        let mut wanting = tokio::task::JoinSet::new();
        for holder in 0..8 {
            let catalog = std::sync::Arc::clone(&world.catalog);
            wanting.spawn(async move {
                let (name, holder) = (format!("round-{round}"), holder.to_string());
                catalog.hold_lease(&name, &holder, LEASE).await.unwrap()
            });
        }
        let held = wanting.join_all().await;
        assert_eq!(held.into_iter().filter(|held| *held).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_given_up_with_and_without_a_pooler() {
    let server = Server::start().await;
    let hurried = || Options {
        statement_timeout: Duration::from_secs(2),
        ..Options::default()
    };
    let direct = World::open_with(&server.database("slow").await, hurried()).await;
    let pooler = crate::PgBouncer::start(server.url());
    crate::world::behind(pooler.port());
    let pooled = World::open_with(&direct.url, hurried()).await;
    let slow = "create function slow() returns trigger language plpgsql as $$ begin \
                perform pg_sleep(60); return new; end $$; \
                create trigger slow before insert on leases for each row execute function slow()";
    direct.tamper(slow).await;
    for world in [direct, pooled] {
        let held = world.catalog.hold_lease("rounds", "a", LEASE).await;
        let error = held.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(error.chain().to_string().contains("statement timeout"));
    }
}
