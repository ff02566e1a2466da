//! Databases on the PostgreSQL that `cargo xtask test` started.

use crate::program;

/// A fresh database of this name; the result is its URL.
pub fn fresh(name: &str) -> String {
    let server = std::env::var("CALOTYPE_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("no PostgreSQL: CALOTYPE_TEST_POSTGRES_URL is not set; run `cargo xtask test`")
    });
    let name = format!("{name}_{}", std::process::id());
    sql(
        &server,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    );
    sql(&server, &format!("CREATE DATABASE {name}"));
    let (address, _) = server.rsplit_once('/').expect("a URL with a database");
    format!("{address}/{name}")
}

/// Runs a statement, and returns its rows as `psql` prints them, unaligned and without headers.
pub fn sql(url: &str, statement: &str) -> String {
    program::run(
        "psql",
        &[
            url,
            "--no-psqlrc",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ],
    )
}
