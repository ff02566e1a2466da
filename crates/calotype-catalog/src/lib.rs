//! The catalog: the metadata of images, jobs, usage and identity in SQL, on SQLite or PostgreSQL from one
//! text of SQL.
//!
//! # Consistency
//! Each method of the ports is one transaction, durable when it returns and seen by every later call. What
//! counts something (a project's usage) and what decides something (that a blob has no reference left) is
//! done in the transaction that changes it. Rows are locked in one order: root key, usage, master key, job, image,
//! blob.
//!
//! # Crash consistency
//! A crash leaves each transaction done or undone. What it leaves outside (bytes of an upload, a job
//! without its worker) is found by its lease, through [`calotype_core::ports::Reconcile`] and
//! [`calotype_core::ports::Jobs::pick_jobs`].
//!
//! # Cancellation
//! Dropping a method's future rolls its transaction back, unless the commit was already on its way: then
//! it happened wholly or not at all, and only the answer is lost.

mod blobs;
mod clock;
mod db;
mod directory;
#[cfg(test)]
#[expect(dead_code, reason = "the suite needs more of it")]
#[path = "../tests/suite/engines.rs"]
mod engines;
mod examine;
mod grants;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "shared with the black-box tests"
)]
#[path = "../../../tests/harness"]
mod harness {
    mod local;
    pub(crate) mod postgres;
}
mod image_tags;
mod images;
mod jobs;
mod ledger;
mod list;
mod master_keys;
mod members;
mod migrate;
mod open;
mod places;
mod postgres;
mod purge;
mod quotas;
mod relocate;
mod roots;
mod rows;
mod uploads;
mod usage;
mod verify;

pub use examine::{Examined, OLDEST_POSTGRES, examine};
pub use open::{DirectUrl, Options, Pooler, SqlCatalog};
pub use relocate::{
    MovedTable, Progress, Relocation, TableProgress, follow, relocate, stop_following,
};
