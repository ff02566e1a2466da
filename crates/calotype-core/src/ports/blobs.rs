//! The port to the sealed bytes.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures_util::Stream;

use super::WrappedKey;
use crate::error::Result;
use crate::id::{BlobId, ProjectId, StoreName};
use crate::image::Digests;
use crate::job::Progress;
use crate::keys::{KeyResult, MasterKey};
use crate::size::ByteSize;
use crate::time::Timestamp;

/// Plaintext in order. The first error ends it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Which digests of the plaintext are computed while it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DigestChoice {
    /// MD5, the Image API's `checksum`.
    pub md5: bool,
    /// SHA-256.
    pub sha256: bool,
    /// SHA-512, the Image API's `os_hash_value`.
    pub sha512: bool,
}

impl Default for DigestChoice {
    fn default() -> Self {
        Self {
            md5: true,
            sha256: false,
            sha512: true,
        }
    }
}

/// How a blob is to be written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// The digests to compute.
    pub digests: DigestChoice,
    /// The most plaintext that is taken.
    pub max_size: ByteSize,
    /// The exact amount of plaintext that must come, where it is known.
    pub expected_size: Option<ByteSize>,
    /// Counts the plaintext bytes taken so far.
    pub progress: Arc<AtomicU64>,
}

/// A blob that is to be made of another's plaintext.
#[derive(Debug, Clone)]
pub struct ResealOrder {
    /// The blob to read.
    pub source: BlobId,
    /// The wrap of its data key; none: the one in its manifest.
    pub source_key: Option<WrappedKey>,
    /// The blob to make.
    pub target: BlobId,
    /// The wrap of its data key.
    pub target_key: WrappedKey,
    /// For which project: projects share the device evenly.
    pub project: ProjectId,
    /// How far it is.
    pub progress: Arc<ResealProgress>,
}

/// How far a reseal is, in bytes of plaintext. It is written by who reseals, and read by whoever looks.
#[derive(Debug, Default)]
pub struct ResealProgress {
    /// Done, in earlier attempts too.
    pub done: AtomicU64,
    /// Of these, noted: the next attempt finds them done.
    pub noted: AtomicU64,
    /// Of these, found done by this attempt.
    pub resumed: AtomicU64,
}

impl ResealProgress {
    /// As far as an earlier attempt is known to have come; how much of it is found again is not known yet.
    pub fn of(earlier: Progress) -> Self {
        Self {
            done: AtomicU64::new(earlier.done.bytes()),
            noted: AtomicU64::new(earlier.noted.bytes()),
            resumed: AtomicU64::new(earlier.done.bytes()),
        }
    }
}

/// Where the bytes of a blob are kept.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The store.
    pub store: StoreName,
    /// What the store knows them by: the blob's own id where they were written, and a fresh one wherever they are moved to.
    /// None is used twice, so what is late for one copy meets no other.
    pub id: BlobId,
}

/// Who knows where blobs are.
#[async_trait::async_trait]
pub trait Places: Send + Sync {
    /// Where a blob's bytes are, or are being written; none where nobody knows the blob.
    async fn place(&self, blob: BlobId) -> Result<Option<Place>>;
}

/// A blob whose bytes are to be in another place too.
#[derive(Debug, Clone)]
pub struct CopyOrder {
    /// The blob.
    pub blob: BlobId,
    /// The place.
    pub to: Place,
    /// For which project: projects share the device evenly.
    pub project: ProjectId,
    /// How far it is.
    pub progress: Arc<ResealProgress>,
}

/// What is known of a blob once it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobFacts {
    /// Bytes of plaintext.
    pub size: ByteSize,
    /// Bytes in the store: sealed pages and manifest; elided pages of zeros take none.
    pub stored: ByteSize,
    /// Digests of the plaintext.
    pub digests: Digests,
}

/// How much of a blob a check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Its manifest and the ends of its segments.
    Ends,
    /// Every page.
    Pages,
    /// Every page, so many stored bytes a second at the most.
    PagesAt(ByteSize),
}

/// What a check of a blob found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobCheck {
    /// Present and authentic.
    Whole(BlobFacts),
    /// Its customer's master key is gone, not enabled or not permitted: it can't be looked into by this wrap.
    Closed,
    /// Its key service does not answer, or its store is not known here: it can't be looked into now.
    Away,
    /// There is no committed blob of this id.
    Missing,
    /// Something does not authenticate or is not there; a sentence for the operator.
    Damaged(String),
}

/// An open blob.
#[async_trait::async_trait]
pub trait BlobReader: Send + Sync {
    /// What is known of it.
    fn facts(&self) -> &BlobFacts;

    /// The plaintext of `range`, which must lie within the size. Every page is verified before a byte
    /// of it is given out; a page that does not authenticate ends the stream with a Damaged error.
    fn read(&self, range: Range<u64>) -> ByteStream;

    /// What is known without reading to lie at `at`, which must lie within the size.
    fn extent(&self, _at: u64) -> Extent {
        Extent {
            end: self.facts().size.bytes(),
            zeros: false,
        }
    }
}

/// A part of a blob's plaintext, from a place that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first byte behind it.
    pub end: u64,
    /// Whether it is all zeros. What is not known to be may be.
    pub zeros: bool,
}

/// The sealed bytes of images, whatever store they lie in.
///
/// # Consistency
/// A blob is there when [`Blobs::write`] has returned, and not before. It never changes.
///
/// # Crash consistency
/// A crash leaves a blob whole or leaves staged bytes that [`Blobs::list_staged`] names.
#[async_trait::async_trait]
pub trait Blobs: Send + Sync {
    /// A fresh data key for a blob that is to be written, under this master key.
    ///
    /// # Errors
    /// What is wrong with the master key.
    async fn fresh_key(&self, blob: BlobId, master: &MasterKey) -> KeyResult<WrappedKey>;

    /// Wraps a blob's data key under another master key, and leaves its bytes as they are. Who has the former wrap
    /// and its master key can still open them.
    ///
    /// # Errors
    /// What is wrong with either master key, with the code of its role; Damaged.
    async fn rewrap(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        master: &MasterKey,
    ) -> Result<WrappedKey>;

    /// Seals `source` as the blob `blob` under the data key of a [`Blobs::fresh_key`], durably.
    ///
    /// # Errors
    /// The source's own error; TooLarge over `max_size`; InvalidRequest where `expected_size` is not met;
    /// StorageFull; Unavailable. After an error nothing is left but what [`Blobs::discard`] removes.
    async fn write(
        &self,
        blob: BlobId,
        key: &WrappedKey,
        source: ByteStream,
        options: WriteOptions,
    ) -> Result<BlobFacts>;

    /// Makes a blob of another's plaintext under another data key. What an attempt that died had finished and
    /// noted is not done again; a target that is there already is only looked at.
    ///
    /// # Errors
    /// Damaged where a page of the source does not authenticate: nothing of it was written. Its
    /// [`Error::damaged_blob`](crate::Error::damaged_blob) is the source only where that is known to be the damaged
    /// one. What is wrong with either master key, with the code of its role. StorageFull; Unavailable. After an error what was finished
    /// stays, for the next attempt or for [`Blobs::discard`].
    async fn reseal(&self, order: ResealOrder) -> Result<BlobFacts>;

    /// Makes a copy of a blob's sealed bytes, as they are, in another place. What an attempt that died had finished and
    /// noted is not done again; a copy that is there already is only looked at. Every page is verified on its way, unless
    /// the blob's key is a customer's that is not to be had.
    ///
    /// # Errors
    /// As [`Blobs::reseal`]; Unavailable where a store is not this process's.
    async fn copy(&self, order: CopyOrder) -> Result<()>;

    /// Opens a blob, by this wrap of its data key or by the one in its manifest. What was opened can be read on while the blob
    /// is moved.
    ///
    /// # Errors
    /// Damaged where it is missing or its manifest does not authenticate, or the wrap does not; what is wrong with the
    /// master key.
    async fn open(&self, blob: BlobId, key: Option<&WrappedKey>) -> KeyResult<Arc<dyn BlobReader>>;

    /// Removes a committed blob from where it is. Not an error where there is none.
    async fn delete(&self, blob: BlobId) -> Result<()>;

    /// Removes what an unfinished write of `blob` left where it was to be. Not an error where there is nothing.
    async fn discard(&self, blob: BlobId) -> Result<()>;

    /// Checks a blob by this wrap of its data key or by the one in its manifest: its manifest and the presence of its
    /// segments, and what `depth` says too.
    async fn check(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        depth: Depth,
    ) -> Result<BlobCheck>;

    /// Succeeds where what is missing in a store is gone, and not the store itself.
    ///
    /// # Errors
    /// Unavailable.
    async fn is_there(&self, store: &StoreName) -> Result<()>;

    /// Removes what is in a place that is no blob's, committed or staged. Not an error where there is nothing.
    async fn clear(&self, place: &Place) -> Result<()>;

    /// Removes what is staged in a place. Not an error where there is nothing.
    async fn clear_staged(&self, place: &Place) -> Result<()>;

    /// The committed bytes in a store by their ids there, each with the time of the commit.
    ///
    /// # Errors
    /// Unavailable where the store is not this process's, or does not answer.
    async fn list(&self, store: &StoreName) -> Result<Vec<(BlobId, Timestamp)>>;

    /// The staged, unfinished bytes in a store by their ids there, each with the time of the last write.
    ///
    /// # Errors
    /// As [`Blobs::list`].
    async fn list_staged(&self, store: &StoreName) -> Result<Vec<(BlobId, Timestamp)>>;

    /// Bytes that a store still takes, where it can say so; without a name, the one that new blobs go to.
    async fn free_space(&self, store: Option<&StoreName>) -> Result<Option<ByteSize>>;
}

/// A few small documents that are kept beside the blobs, by name: what must not be lost with the catalog, and what
/// tells one store from another.
#[async_trait::async_trait]
pub trait Labels: Send + Sync {
    /// A label; nothing where there is none of this name.
    ///
    /// # Errors
    /// InvalidRequest for a name that is not 1 to 64 lower-case letters; Unavailable; Internal.
    async fn label(&self, name: &str) -> Result<Option<Bytes>>;

    /// Whether a label is these bytes, wherever it is kept.
    ///
    /// # Errors
    /// As [`Labels::label`].
    async fn is_label(&self, name: &str, bytes: &Bytes) -> Result<bool> {
        Ok(self.label(name).await?.as_ref() == Some(bytes))
    }

    /// Writes a label, in the place of the one that is there. When it returns the label is durable; a crash leaves
    /// the old one or the new one, whole.
    ///
    /// # Errors
    /// As [`Labels::label`]; StorageFull.
    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()>;
}
