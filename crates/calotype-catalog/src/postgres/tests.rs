//! Connections that are lost between two statements of a transaction.

use std::sync::Arc;

use super::*;
use crate::SqlCatalog;
use crate::clock::Epoch;
use crate::db::{Db, Tx, is_undone};
use crate::engines;
use crate::open::{DirectUrl, Pooler};

/// Ends every connection to the database but the one that says so.
const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and pid <> pg_backend_pid()";

const INSERT: &str = "insert into leases (name, holder, expires_at) values ($1, 'me', 0)";

struct World {
    catalog: SqlCatalog,
    url: String,
    _server: engines::Server,
}

impl World {
    async fn open(name: &str) -> Self {
        let server = engines::Server::start().await;
        let url = server.database(name).await;
        let options = Options::default();
        let catalog = SqlCatalog::open(&url, options, Arc::new(Epoch)).await;
        Self {
            catalog: catalog.unwrap(),
            url,
            _server: server,
        }
    }

    async fn cut(&self) {
        let mut c = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(CUT).execute(&mut c).await.unwrap();
    }

    fn db(&self) -> &Db {
        &self.catalog.db
    }

    async fn leases(&self) -> i64 {
        let mut tx = self.db().read().await.unwrap();
        let sql = "select count(*) as n from leases";
        let row = tx.fetch_optional(sql, Vec::new()).await.unwrap();
        row.unwrap().int("n").unwrap()
    }
}

async fn insert(tx: &mut Tx, name: &str) -> Result<u64> {
    tx.execute(INSERT, vec![Arg::text(name)]).await
}

/// So many turns of the runtime.
async fn turns(many: usize) {
    for _ in 0..many {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_goes_away_while_a_transaction_begins_leaves_none_open() {
    const OPEN: &str = "select count(*) from pg_stat_activity where datname = current_database() \
                        and state like 'idle in transaction%'";
    let world = World::open("begun_in_vain").await;
    let mut c = PgConnection::connect(&world.url).await.unwrap();
    for many in 0..200 {
        tokio::select! {
            biased;
            begun = world.db().read() => drop(begun.unwrap()),
            () = turns(250 * many) => {}
        }
        // One that is left open stays so; what is rolled back takes a moment.
        let mut open = 1;
        for _ in 0..1000 {
            let count = sqlx::query_scalar::<_, i64>(OPEN);
            open = count.fetch_one(&mut c).await.unwrap();
            if open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(open, 0, "after {many} times 250 turns");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_connection_is_lost_at_its_first_statement_is_answered() {
    let world = World::open("cut_reads").await;
    for asks_the_time in [false, true] {
        let mut tx = world.db().read().await.unwrap();
        if asks_the_time {
            tx.now().await.unwrap();
        }
        world.cut().await;
        let sql = "select count(*) as n from leases";
        assert_eq!(tx.fetch_all(sql, Vec::new()).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_has_told_something_is_not_begun_again_on_another_state() {
    let world = World::open("cut_second_read").await;
    let mut tx = world.db().read().await.unwrap();
    let sql = "select count(*) as n from leases";
    tx.fetch_all(sql, Vec::new()).await.unwrap();
    world.cut().await;
    let error = tx.fetch_all(sql, Vec::new()).await.err().unwrap();
    assert!(error.is_transient() && is_undone(&error), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_connection_is_lost_at_its_first_statement_is_done_once() {
    let world = World::open("cut_writes").await;
    let mut tx = world.db().write().await.unwrap();
    tx.now().await.unwrap();
    world.cut().await;
    insert(&mut tx, "a").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.leases().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_lost_before_its_commit_is_done_again_and_once() {
    let world = World::open("cut_before_commit").await;
    let first = std::sync::atomic::AtomicBool::new(true);
    let once = || async {
        let mut tx = world.db().write().await?;
        insert(&mut tx, "a").await?;
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            world.cut().await;
        }
        insert(&mut tx, "b").await?;
        tx.commit().await
    };
    crate::db::again_on_contention!(once()).unwrap();
    assert_eq!(world.leases().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_not_done_again() {
    let world = World::open("cut_at_commit").await;
    let mut tx = world.db().write().await.unwrap();
    insert(&mut tx, "a").await.unwrap();
    world.cut().await;
    let error = tx.commit().await.unwrap_err();
    assert!(error.is_transient() && !is_undone(&error), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_all_lose_their_connections_at_once_find_others() {
    let world = World::open("cut_all").await;
    let most = Options::default().connections;
    let mut waiting = Vec::new();
    for _ in 0..most {
        waiting.push(world.db().read().await.unwrap());
    }
    world.cut().await;
    let mut reading = tokio::task::JoinSet::new();
    for mut tx in waiting {
        reading.spawn(async move {
            let sql = "select count(*) as n from leases";
            tx.fetch_all(sql, Vec::new()).await.unwrap().len()
        });
    }
    assert_eq!(reading.join_all().await, vec![1; most as usize]);
}

/// A way to the server that can be made silent: what is said on it then is neither passed on nor refused.
async fn way_to(url: &str, open: Arc<std::sync::atomic::AtomicBool>) -> String {
    let (login, rest) = url.rsplit_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let there = address.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&there).await.unwrap();
            let (client, server) = (client.into_split(), server.into_split());
            tokio::spawn(pass(client.0, server.1, Arc::clone(&open)));
            tokio::spawn(pass(server.0, client.1, Arc::clone(&open)));
        }
    });
    format!("{login}@{here}/{database}")
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    open: Arc<std::sync::atomic::AtomicBool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if !open.load(std::sync::atomic::Ordering::SeqCst) {
            // Neither end ever hears of the other again.
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_whole_tables_is_given_more_time_than_a_statement_has() {
    let server = engines::Server::start().await;
    let options = Options {
        statement_timeout: Duration::from_millis(500),
        ..Options::default()
    };
    let url = server.database("time").await;
    let catalog = SqlCatalog::open(&url, options, Arc::new(Epoch)).await;
    let catalog = catalog.unwrap();
    let slow = "select cast(pg_sleep(1.5) as text) as slept";
    let mut read = catalog.db.read().await.unwrap();
    let error = read.fetch_all(slow, Vec::new()).await.err().unwrap();
    assert!(error.is_transient(), "{error:?}");
    let mut read = catalog.db.read().await.unwrap();
    read.take_time().await.unwrap();
    read.fetch_all(slow, Vec::new()).await.unwrap();
    drop(read);
    // Whoever has the connection next is as limited as ever.
    let mut read = catalog.db.read().await.unwrap();
    assert!(read.fetch_all(slow, Vec::new()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_reads_whole_tables_may_scan_them_and_has_help() {
    let server = engines::Server::start().await;
    let url = server.database("help").await;
    for pooler in [Pooler::None, Pooler::Transaction(DirectUrl(url.clone()))] {
        let options = Options {
            pooler,
            ..Options::default()
        };
        let catalog = SqlCatalog::open(&url, options, Arc::new(Epoch)).await;
        let db = catalog.unwrap().db.clone();
        let of_reads = help(db.read().await.unwrap()).await;
        let of_writes = help(db.write().await.unwrap()).await;
        let mut whole = db.read().await.unwrap();
        whole.take_time().await.unwrap();
        assert_eq!(
            (of_reads, of_writes, help(whole).await),
            ("off 0".into(), "off 0".into(), "on 2".into())
        );
        let rows = db.fetch_all(HELP.to_owned(), Vec::new()).await.unwrap();
        assert_eq!(rows.first().unwrap().text("help").unwrap(), "off 0");
    }
}

const HELP: &str = "select current_setting('enable_seqscan') || ' ' || \
                    current_setting('max_parallel_workers_per_gather') as help";

/// Whether a statement in the transaction may read a table from end to end, and how many processes more it may have.
async fn help(mut tx: Tx) -> String {
    let row = tx.fetch_optional(HELP, Vec::new()).await.unwrap();
    row.unwrap().text("help").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_told_of_and_keeps_nobody_waiting_for_ever() {
    let server = engines::Server::start().await;
    let open = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let url = server.database("silent").await;
    let options = Options {
        statement_timeout: Duration::from_secs(2),
        acquire_timeout: Duration::from_secs(3),
        ..Options::default()
    };
    let way = way_to(&url, Arc::clone(&open)).await;
    let catalog = SqlCatalog::open(&way, options, Arc::new(Epoch)).await;
    let catalog = catalog.unwrap();
    let mut reads = catalog.db.read().await.unwrap();
    let mut writes = catalog.db.write().await.unwrap();
    insert(&mut writes, "a").await.unwrap();
    open.store(false, std::sync::atomic::Ordering::SeqCst);
    let sql = "select count(*) as n from leases";
    let error = reads.fetch_all(sql, Vec::new()).await.err().unwrap();
    assert!(error.is_transient() && !is_undone(&error), "{error:?}");
    let error = writes.commit().await.unwrap_err();
    assert!(error.is_transient() && !is_undone(&error), "{error:?}");
    let error = catalog.db.read().await.err().unwrap();
    assert!(error.is_transient(), "{error:?}");
}
