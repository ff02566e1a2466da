//! `calotype migrate-catalog`: the catalog of a service moves out of SQLite into PostgreSQL.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calotype_catalog::{
    MovedTable, Progress, Relocation, TableProgress, follow, relocate, stop_following,
};
use calotype_core::Error;
use serde_json::{Value, json};

use super::lock::DataDirLock;
use super::{lock, parts};
use crate::cli::MigrateCatalogArgs;
use crate::config::{Config, Environment};
use crate::exit::Failure;
use crate::output::{Output, Rows};
use crate::system::{SystemClock, keep_memory_private};

/// How often it is said how far a table has got.
const TELL: Duration = Duration::from_secs(1);

/// How often it is said that the service can be stopped.
const STILL_THERE: Duration = Duration::from_secs(60);

/// Moves the catalog, and says what has moved. Interrupted and called again, it goes on.
///
/// # Errors
/// Where a service runs on the directory, there is no catalog in it, the configuration names no PostgreSQL, or that
/// has a catalog already.
pub(crate) async fn run(
    args: &MigrateCatalogArgs,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), environment)?;
    let url = config.catalog.url.as_deref();
    if !url.is_some_and(|url| url.starts_with("postgres")) {
        return Err(Failure::usage(
            "the configuration's [catalog] url must be the PostgreSQL that the catalog moves to",
        ));
    }
    if !args.data_dir.is_dir() {
        let path = args.data_dir.display();
        return Err(Failure::usage(format!("{path} is no directory")));
    }
    keep_memory_private();
    let _alone = lock::acquire_for_move(&args.data_dir)?;
    let default = args.data_dir.join("catalog.db");
    let from = args.from.as_deref().unwrap_or(&default);
    let order = Relocation {
        from,
        to: &parts::catalog_url(&config, &args.data_dir)?,
        options: parts::catalog_options(&config)?,
        clock: Arc::new(SystemClock),
        rows_at_once: args.rows_at_once,
    };
    if args.give_up {
        let given_up = stop_following(&order).await;
        given_up.map_err(parts::failed("the catalog"))?;
        output.note("The service stays where it is. Empty the PostgreSQL before another move.");
        return Ok(());
    }
    // Nobody serves from it meanwhile, or any more.
    let _lock = if args.while_serving {
        follow_until_stopped(&args.data_dir, &order, output).await?
    } else {
        lock::acquire(&args.data_dir)?
    };
    let moved = relocate(order, teller(output)).await;
    let moved = moved.map_err(parts::failed("the catalog"))?;
    output.note(&format!(
        "The catalog has moved: start the service with this configuration. {} is left as it is, and no service starts on it again.",
        from.display()
    ));
    output.result(&document_of(&moved), |_| rows_of(&moved))
}

/// Copies while a service runs on the directory, and has the directory locked in the end.
async fn follow_until_stopped(
    data_dir: &Path,
    order: &Relocation<'_>,
    output: &Output,
) -> Result<DataDirLock, Failure> {
    let mut told: Option<Instant> = None;
    let mut lock = None;
    let stopped = |changed: u64| {
        let locked = lock::try_acquire(data_dir);
        lock = locked.map_err(|failure| Error::internal(failure.to_string()))?;
        if lock.is_some() {
            return Ok(true);
        }
        if told.is_none_or(|told| told.elapsed() >= STILL_THERE) {
            told = Some(Instant::now());
            output.note(&format!(
                "All is copied, and {changed} rows that have changed since. Stop the service when it suits: the rest of the move begins then."
            ));
        }
        Ok(false)
    };
    let followed = follow(order, teller(output), stopped).await;
    followed.map_err(parts::failed("the catalog"))?;
    lock.ok_or_else(|| Failure::new("the data directory was not locked"))
}

fn teller(output: &Output) -> impl FnMut(Progress) -> calotype_core::Result<()> + Send {
    let mut told = Instant::now();
    let mut tell = move |progress: TableProgress, what| {
        let TableProgress { table, done, rows } = progress;
        if done == rows || told.elapsed() >= TELL {
            told = Instant::now();
            output.note(&format!("{table}: {done} of {rows} rows {what}"));
        }
    };
    move |progress| {
        match progress {
            Progress::Copied(progress) => tell(progress, "copied"),
            Progress::Compared(progress) => tell(progress, "compared"),
            Progress::Anew => {
                output.note("What was copied is not what is there any more: all is copied again.");
            }
        }
        Ok(())
    }
}

fn document_of(moved: &[MovedTable]) -> Value {
    let table = |moved: &MovedTable| json!({"table": moved.table, "rows": moved.rows, "sha256": moved.sha256});
    json!({"tables": moved.iter().map(table).collect::<Vec<_>>()})
}

fn rows_of(moved: &[MovedTable]) -> Rows {
    let mut rows = Rows::new(&["TABLE", "ROWS", "SHA256"]).numeric(&[1]);
    for MovedTable {
        table,
        rows: count,
        sha256,
    } in moved
    {
        rows.push([(*table).to_owned(), count.to_string(), sha256.clone()]);
    }
    rows
}
