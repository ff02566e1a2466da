//! Where sealed bytes lie.
//!
//! A store knows nothing of keys or plaintext. It takes the stored bytes of a blob's segments, several segments
//! at once if need be, and then its manifest, which commits the blob. Every segment has a *slot*, the most bytes
//! that it can take: a file system gives each slot a fixed place in one file; an object store makes each an object.
//!
//! Beside the blobs it keeps *labels*: a few small documents by name, such as whose store it is.
//!
//! # Consistency
//! A blob can be opened when [`Staged::commit`] has returned, and not before. It never changes after.
//!
//! # Crash consistency
//! A crash leaves a blob whole, or staged bytes that [`BlobStore::list_staged`] names and
//! [`BlobStore::discard`] removes. Of an attempt whose process died, the segments that a
//! [`Staged::checkpoint`] noted can be had again by [`BlobStore::resume`].
//!
//! # Cancellation
//! A [`Staged`] that is dropped leaves staged bytes. Whoever drops the future of a `commit` does not know
//! whether the blob is there, but it is whole if it is.

mod body;
mod buffer;
mod cache;
mod disk;
mod faulty;
mod file;
mod journal;
mod memory;
mod s3;
mod staged_file;

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};

pub(crate) use buffer::BLOCK;
pub use buffer::Buffer;
pub use cache::Cache;
pub use disk::{Disk, Step};
pub use faulty::{Fault, Faults, FaultyStore, Operation};
pub use file::FileStore;
pub use memory::MemoryStore;
pub use s3::S3Store;

/// The place of a segment's stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The segment's index in the blob.
    pub index: u32,
    /// The most bytes that a segment of this blob takes.
    pub size: u64,
}

/// What reads are for: it decides whether they are worth a place in the system's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Somebody reads an image; others may soon read it too.
    Shared,
    /// One pass over all of it, by the service itself: what others read must not be evicted for it.
    OnePass,
}

/// A store of sealed blobs.
#[async_trait::async_trait]
pub trait BlobStore: Send + Sync {
    /// Begins an attempt to write a blob whose slots have `slot` bytes each. Several attempts may be on
    /// at once, and one of them at most is committed.
    ///
    /// # Errors
    /// StorageFull; Unavailable; Internal.
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>>;

    /// Goes on with what a dead attempt left, where there is such a one; otherwise as [`BlobStore::stage`]. An
    /// attempt that may still be alive is left alone.
    ///
    /// # Errors
    /// As [`BlobStore::stage`].
    async fn resume(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>>;

    /// A committed blob; nothing where there is none.
    ///
    /// # Errors
    /// Damaged where a part of it is gone; Unavailable; Internal.
    async fn open(&self, blob: BlobId, purpose: Use) -> Result<Option<Arc<dyn Stored>>>;

    /// Removes a committed blob. Not an error where there is none. After a crash it is either whole, or
    /// gone but for staged bytes.
    async fn delete(&self, blob: BlobId) -> Result<()>;

    /// Removes what unfinished attempts at a blob left, and ends those that are on: they can't be
    /// committed any more. Not an error where there is nothing.
    async fn discard(&self, blob: BlobId) -> Result<()>;

    /// The committed blobs, by id, each with the time of its commit.
    async fn list(&self) -> Result<Vec<(BlobId, Timestamp)>>;

    /// The blobs with staged bytes, by id, each with the time of the last write.
    async fn list_staged(&self) -> Result<Vec<(BlobId, Timestamp)>>;

    /// Succeeds where what the store does not have is gone, and not the store itself.
    ///
    /// # Errors
    /// Unavailable.
    async fn is_there(&self) -> Result<()> {
        Ok(())
    }

    /// Bytes that the store still takes, where it can say so.
    async fn free_space(&self) -> Result<Option<ByteSize>>;

    /// Bytes of memory that the store itself takes for a segment that is read and one that is written, on top of those
    /// that it is asked for and given.
    fn memory(&self) -> u64 {
        0
    }

    /// A label; nothing where there is none of this name. See [`calotype_core::ports::Labels`].
    ///
    /// # Errors
    /// InvalidRequest for a name that none can have; Unavailable; Internal.
    async fn label(&self, name: &str) -> Result<Option<Bytes>>;

    /// Writes a label, in the place of the one that is there. When it returns the label is durable; a crash leaves
    /// the old one or the new one, whole.
    ///
    /// # Errors
    /// InvalidRequest for a name that none can have, or more than [`LABEL_LIMIT`] bytes; StorageFull; Unavailable;
    /// Internal.
    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()>;
}

/// The most bytes that a label may have.
pub const LABEL_LIMIT: usize = 1 << 20;

/// Labels are words: a name can't lead anywhere else.
fn check_label(name: &str, length: usize) -> Result<()> {
    let word = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase());
    if !word || length > LABEL_LIMIT {
        return Err(Error::invalid(
            "A label's name has 1 to 64 lower-case letters, and its bytes are at most 1 MiB.",
        ));
    }
    Ok(())
}

/// What an attempt knows of a segment that is finished: the caller's own bytes, at most [`NOTE_LIMIT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The segment's index.
    pub index: u32,
    /// What the caller needs to go on without it.
    pub bytes: Bytes,
}

/// The most bytes that a note may have.
pub const NOTE_LIMIT: usize = 1024;

/// An attempt to write a blob.
#[async_trait::async_trait]
pub trait Staged: Send + Sync {
    /// The notes of the segments that a dead attempt finished and this one need not write again, by rising
    /// index.
    fn noted(&self) -> &[Note];

    /// Begins segment `index`. Several may be begun; each is written by one writer, and one that is not finished
    /// must not be named by the manifest.
    ///
    /// # Errors
    /// Internal where the attempt has failed before.
    fn segment(&self, index: u32) -> Result<Box<dyn SegmentWriter>>;

    /// Makes the finished segments durable, and then notes those that are given: they were finished before this
    /// was called. Segments can be written meanwhile.
    ///
    /// # Errors
    /// StorageFull; Unavailable; Internal. After an error the attempt can only be abandoned.
    async fn checkpoint(&self, notes: Vec<Note>) -> Result<()>;

    /// Makes everything durable, and then the blob visible, with this manifest. All writers are finished.
    ///
    /// # Errors
    /// Conflict where the blob is there already, or the attempt was discarded; otherwise as
    /// [`Staged::checkpoint`].
    async fn commit(&self, manifest: Bytes) -> Result<()>;

    /// Removes the attempt's bytes.
    async fn abandon(&self) -> Result<()>;
}

/// Writes the stored bytes of one segment.
#[async_trait::async_trait]
pub trait SegmentWriter: Send {
    /// Adds bytes.
    ///
    /// # Errors
    /// InvalidRequest where they would not fit the slot; StorageFull; Unavailable; Internal. After an error the
    /// attempt can only be abandoned.
    async fn append(&mut self, bytes: Bytes) -> Result<()>;

    /// Ends the segment: the store has all its bytes, though not durably.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    async fn finish(&mut self) -> Result<()>;
}

/// A committed blob, open. What was opened stays readable when the blob is deleted, where the store can
/// grant that.
#[async_trait::async_trait]
pub trait Stored: Send + Sync {
    /// The manifest's bytes.
    fn manifest(&self) -> &Bytes;

    /// Reads `length` stored bytes of a segment from `offset`, into a buffer that is used again.
    ///
    /// # Errors
    /// Damaged where they are not there or the device can't read them; Unavailable; Internal.
    async fn read(&self, slot: Slot, offset: u64, length: usize, buffer: Buffer) -> Result<Buffer>;

    /// As [`Stored::read`], of bytes that turned out to be wrong: once more from where they are kept for good, where they
    /// may have come from elsewhere, or over a network. Nothing where that would give the same.
    ///
    /// # Errors
    /// As [`Stored::read`].
    async fn read_again(
        &self,
        _slot: Slot,
        _offset: u64,
        _length: usize,
        _buffer: Buffer,
    ) -> Result<Option<Buffer>> {
        Ok(None)
    }
}

/// The first failure of an attempt. After it nothing is written or committed any more: every later step fails as that one
/// did, for the first may have been one that nobody waits for.
#[derive(Default)]
struct FirstFailure(OnceLock<(ErrorKind, String)>);

impl FirstFailure {
    /// # Errors
    /// The first failure, where there was one.
    fn check(&self) -> Result<()> {
        match self.0.get() {
            Some((kind, message)) => {
                let error = Error::new(*kind, message);
                Err(error.with_context("this attempt has failed before"))
            }
            None => Ok(()),
        }
    }

    fn note(&self, error: &Error) {
        // The first one stays.
        let _ = self.0.set((error.kind(), error.message().to_owned()));
    }
}

/// An attempt is over once something of it has failed: what is on the device then is not known.
fn failed_before() -> Error {
    Error::internal("this attempt has failed before")
}

fn misplaced() -> Error {
    Error::invalid("The bytes do not fit their segment.")
}

/// The domain's error for one of the system's while writing.
fn io_error(error: io::Error) -> Error {
    if is_out_of_files(&error) {
        return Error::unavailable(error);
    }
    Error::storage(error, "The image storage is full.")
}

/// The domain's error for one of the system's while reading what was committed.
fn read_error(error: io::Error) -> Error {
    let damaged = error.kind() == io::ErrorKind::UnexpectedEof
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    if damaged {
        return Error::damaged(error);
    }
    io_error(error)
}

fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error())
        || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}
