//! `calotype migrate-catalog`: the catalog of a stopped service moves out of SQLite into PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calotype_catalog::{MovedTable, Relocation, Step, TableProgress, relocate};
use serde_json::{Value, json};

use super::{lock, parts};
use crate::cli::MigrateCatalogArgs;
use crate::config::{Config, Environment};
use crate::exit::Failure;
use crate::output::{Output, Rows};
use crate::system::{SystemClock, keep_memory_private};

/// How often it is said how far a table has got.
const TELL: Duration = Duration::from_secs(1);

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
    // Nobody serves from it meanwhile.
    let _lock = lock::acquire(&args.data_dir)?;
    let default = args.data_dir.join("catalog.db");
    let from = args.from.as_deref().unwrap_or(&default);
    let order = Relocation {
        from,
        to: &parts::catalog_url(&config, &args.data_dir)?,
        options: parts::catalog_options(&config)?,
        clock: Arc::new(SystemClock),
        rows_at_once: args.rows_at_once,
    };
    let mut told = Instant::now();
    let tell = |progress: TableProgress| {
        if progress.done == progress.rows || told.elapsed() >= TELL {
            told = Instant::now();
            output.note(&line_of(progress));
        }
        Ok(())
    };
    let moved = relocate(order, tell).await;
    let moved = moved.map_err(parts::failed("the catalog"))?;
    output.note(&format!(
        "The catalog has moved: start the service with this configuration. {} is left as it is, and no service starts on it again.",
        from.display()
    ));
    output.result(&document_of(&moved), |_| rows_of(&moved))
}

fn line_of(progress: TableProgress) -> String {
    let TableProgress {
        step,
        table,
        done,
        rows,
    } = progress;
    let step = match step {
        Step::Copy => "copied",
        Step::Compare => "compared",
    };
    format!("{table}: {done} of {rows} rows {step}")
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
