//! The harness of the black-box tests: it starts the real binary on a free port with a data directory of
//! its own, speaks HTTP to it, and kills it.
//!
//! Everything here panics where the world is not as a test needs it; a test that fails prints the server's
//! log. Nothing is skipped because something is missing: it fails and names `cargo xtask test`, which
//! installs it.

pub mod ceph;
pub mod client;
pub mod config;
pub mod content;
pub mod database;
pub mod exports;
pub mod faults;
pub mod front;
pub mod image;
pub mod keys;
pub mod keystone;
pub mod memory;
pub mod objects;
pub mod openstack;
pub mod pgbouncer;
pub mod postgres;
pub mod program;
pub mod server;
pub mod small_disk;
pub mod worker;

pub use ceph::Ceph;
pub use client::{Answer, Client};
pub use content::{Content, Digests};
pub use faults::{Fault, Network};
pub use front::Front;
pub use image::Job;
pub use keystone::Keystone;
pub use objects::S3Store;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use server::{Options, Server};
pub use worker::Worker;

use std::time::{Duration, Instant};

/// How long anything that must happen is waited for. It bounds a test that would hang; nothing is
/// expected to take this long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until there is an answer, and panics with `what` where there is none in [`PATIENCE`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(15));
    }
}
