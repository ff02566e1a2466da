//! What the engines of a run are used with: where they are, and names that nothing else in them has.
//!
//! Also compiled into the tests of `calotype-blob`, `calotype-keys` and `calotype-objects`, which need the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What `cargo xtask test` says of an engine that it has started, in this variable.
pub fn engine(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("no engine: {name} is not set; run `cargo xtask test`"))
}

/// A name that nothing else has.
pub fn fresh_name(what: &str) -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    // Ids of processes come again within a run.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_micros();
    format!("{what}-{}-{now:x}-{number}", std::process::id())
}
