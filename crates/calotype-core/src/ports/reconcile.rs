//! What the reconciler, the verifier and the scrubber need of the catalog.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(doc)]
use super::Images;
use super::WrappedKey;
use super::blobs::{BlobFacts, Place};
use crate::error::Result;
use crate::id::{BlobId, StoreName};
use crate::size::ByteSize;
use crate::time::Timestamp;

/// Where a blob is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// Being written under a lease.
    Writing,
    /// Committed.
    Stored,
    /// Its deletion was decided: its bytes are being removed.
    Deleting,
}

/// A blob's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its id.
    pub id: BlobId,
    /// Where it is in its life.
    pub state: BlobState,
    /// How many images refer to it.
    pub images: u64,
    /// Its plaintext's size and digests, once stored.
    pub facts: Option<BlobFacts>,
    /// Whether it is marked as damaged.
    pub damaged: bool,
    /// When its bytes were written, or last read by the scrubber; none: not since an older version wrote them.
    pub scrubbed_at: Option<Timestamp>,
    /// Where its bytes are, or are being written.
    pub place: Place,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobsIn {
    /// Blobs that images or jobs refer to.
    pub blobs: u64,
    /// Their bytes there.
    pub bytes: ByteSize,
    /// Blobs that are being written.
    pub writing: u64,
    /// Blobs and copies that wait for their deletion.
    pub leaving: u64,
    /// Copies that are being made of blobs in other stores.
    pub arriving: u64,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The invariant's number in ARCHITECTURE.md.
    pub invariant: u8,
    /// What is wrong.
    pub detail: String,
}

/// The port to the rows of blobs.
#[async_trait::async_trait]
pub trait Reconcile: Send + Sync {
    /// Ends the uploads whose lease ran out, as [`Images::abort_upload`] does, and names their blobs.
    async fn expire_uploads(&self) -> Result<Vec<BlobId>>;

    /// Ends every lease, of uploads and of jobs, so that what dead processes held is due at once. Only for a
    /// caller who knows that no other process lives on this catalog.
    async fn end_leases(&self) -> Result<()>;

    /// Blobs that may be deletable, unreferenced and past their grace, or half deleted, and the stores that they are in: by
    /// id, those after `after`.
    async fn deletable_blobs(
        &self,
        after: Option<BlobId>,
        limit: u32,
    ) -> Result<Vec<(BlobId, StoreName)>>;

    /// Decides, in the transaction that checks it, that nothing refers to the blob and that its grace is
    /// over. Only after `true` may its bytes be removed.
    async fn claim_deletion(&self, blob: BlobId) -> Result<bool>;

    /// Removes the row of a blob whose bytes are gone.
    async fn forget_blob(&self, blob: BlobId) -> Result<()>;

    /// Marks a blob whose bytes do not authenticate: its images show it, and are not replicated any more.
    async fn mark_damaged(&self, blob: BlobId) -> Result<()>;

    /// Takes the mark back: every byte was found whole again.
    async fn clear_damage(&self, blob: BlobId) -> Result<()>;

    /// The stored blobs whose bytes were written, or read by the scrubber, at `until` or before, or nobody knows when; the
    /// longest ago first, those after `after`.
    async fn due_for_scrub(
        &self,
        until: Timestamp,
        after: Option<&BlobRecord>,
        limit: u32,
    ) -> Result<Vec<BlobRecord>>;

    /// Since when the stored blob that was not read for the longest has not been: since it was written or read, or since
    /// that began to be noted.
    async fn unread_since(&self) -> Result<Option<Timestamp>>;

    /// Notes that the scrubber has read a blob, whatever it found.
    async fn note_scrub(&self, blob: BlobId) -> Result<()>;

    /// How many stored blobs are marked as damaged.
    async fn damaged_blobs(&self) -> Result<u64>;

    /// The wraps of a blob's data key that images have of their own, each once.
    async fn wraps(&self, blob: BlobId) -> Result<Vec<WrappedKey>>;

    /// A blob's row.
    async fn blob(&self, id: BlobId) -> Result<Option<BlobRecord>>;

    /// Blobs by id, those after `after`.
    async fn blobs(&self, after: Option<BlobId>, limit: u32) -> Result<Vec<BlobRecord>>;

    /// The blobs of a store that images or jobs refer to, stored or being written, by id, those after `after`.
    async fn blobs_in(
        &self,
        store: &StoreName,
        after: Option<BlobId>,
        limit: u32,
    ) -> Result<Vec<BlobRecord>>;

    /// The stores that blobs are in, without those that there are no more.
    async fn stores_of(&self, blobs: &[BlobId]) -> Result<BTreeMap<BlobId, StoreName>>;

    /// What a store holds.
    async fn store_content(&self, store: &StoreName) -> Result<BlobsIn>;

    /// The stores that blobs or copies are in.
    async fn stores_in_use(&self) -> Result<Vec<StoreName>>;

    /// The places of copies that are being made, or that blobs have left, those after `after`.
    async fn copies(&self, after: Option<&Place>, limit: u32) -> Result<Vec<Place>>;

    /// The places of copies whose time is over, or that are half removed, those after `after`.
    async fn deletable_copies(&self, after: Option<&Place>, limit: u32) -> Result<Vec<Place>>;

    /// Decides that nobody needs a copy any more. Only after `true` may its bytes be removed.
    async fn claim_copy(&self, place: &Place) -> Result<bool>;

    /// Removes the record of a copy whose bytes are gone.
    async fn forget_copy(&self, place: &Place) -> Result<()>;

    /// Removes records whose time is over (tokens, kept answers, lines of the audit trail, ended jobs, customers' master
    /// keys with all their material), some of them: no step keeps others waiting. Returns how many; zero when there is
    /// no more.
    async fn purge_expired(&self) -> Result<u64>;

    /// Takes a lease, or extends it where `holder` has it, so that of all processes on this catalog one at a time does what
    /// the lease is for. False where another has it. Where the catalog is one process's alone, it has every lease.
    async fn hold_lease(&self, name: &str, holder: &str, lease: Duration) -> Result<bool>;

    /// Gives a lease up, where `holder` has it.
    async fn release_lease(&self, name: &str, holder: &str) -> Result<()>;

    /// The invariants that the catalog can check by itself: those that are broken.
    async fn violations(&self) -> Result<Vec<Violation>>;

    /// Succeeds while the database answers: the readiness check.
    async fn ping(&self) -> Result<()>;
}
