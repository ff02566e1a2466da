//! Where sealed bytes lie.
//!
//! A store knows nothing of keys or plaintext. It takes the stored bytes of a blob's segments in order,
//! and then its manifest, which commits the blob. Every segment has a *slot*, the most bytes that it can
//! take: a file system gives each slot a fixed place in one file; an object store would make each an
//! object.
//!
//! # Consistency
//! A blob can be opened when [`Staged::commit`] has returned, and not before. It never changes after.
//!
//! # Crash consistency
//! A crash leaves a blob whole, or staged bytes that [`BlobStore::list_staged`] names and
//! [`BlobStore::discard`] removes.
//!
//! # Cancellation
//! A [`Staged`] that is dropped leaves staged bytes. Whoever drops the future of a `commit` does not know
//! whether the blob is there, but it is whole if it is.

mod body;
mod disk;
mod faulty;
mod file;
mod memory;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};

pub use disk::{Disk, Step};
pub use faulty::{Fault, Faults, FaultyStore, Operation};
pub use file::FileStore;
pub use memory::MemoryStore;

/// The place of a segment's stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The segment's index in the blob.
    pub index: u32,
    /// The most bytes that a segment of this blob takes.
    pub size: u64,
}

/// A store of sealed blobs.
#[async_trait::async_trait]
pub trait BlobStore: Send + Sync {
    /// Begins an attempt to write a blob whose slots have `slot` bytes each. Several attempts may be on
    /// at once, and one of them at most is committed.
    ///
    /// # Errors
    /// StorageFull; Unavailable; Internal.
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Box<dyn Staged>>;

    /// A committed blob; nothing where there is none.
    ///
    /// # Errors
    /// Damaged where a part of it is gone; Unavailable; Internal.
    async fn open(&self, blob: BlobId) -> Result<Option<Arc<dyn Stored>>>;

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

    /// Bytes that the store still takes, where it can say so.
    async fn free_space(&self) -> Result<Option<ByteSize>>;
}

/// An attempt to write a blob.
#[async_trait::async_trait]
pub trait Staged: Send {
    /// Adds bytes to those of segment `index`. Segments come in rising order; some may not come at all.
    ///
    /// # Errors
    /// InvalidRequest where they would not fit the slot or come out of order; StorageFull; Unavailable;
    /// Internal. After an error the attempt can only be abandoned.
    async fn append(&mut self, index: u32, bytes: Bytes) -> Result<()>;

    /// Says that segment `index` has all its bytes: the store may begin to make them durable.
    async fn finish_segment(&mut self, index: u32) -> Result<()>;

    /// Makes everything durable, and then the blob visible, with this manifest.
    ///
    /// # Errors
    /// Conflict where the blob is there already, or the attempt was discarded; otherwise as
    /// [`Staged::append`].
    async fn commit(&mut self, manifest: Bytes) -> Result<()>;

    /// Removes the attempt's bytes.
    async fn abandon(&mut self) -> Result<()>;
}

/// A committed blob, open. What was opened stays readable when the blob is deleted, where the store can
/// grant that.
#[async_trait::async_trait]
pub trait Stored: Send + Sync {
    /// The manifest's bytes.
    fn manifest(&self) -> &Bytes;

    /// Fills `buffer`, to its length, with the stored bytes of a segment from `offset`.
    ///
    /// # Errors
    /// Damaged where they are not there or the device can't read them; Unavailable; Internal.
    async fn read(&self, slot: Slot, offset: u64, buffer: Vec<u8>) -> Result<Vec<u8>>;
}

/// The domain's error for one of the system's while writing.
fn io_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::new(ErrorKind::StorageFull, "The image storage is full.").with_context(error)
        }
        io::ErrorKind::OutOfMemory
        | io::ErrorKind::Interrupted
        | io::ErrorKind::TimedOut
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::HostUnreachable => Error::unavailable(error),
        _ if is_out_of_files(&error) => Error::unavailable(error),
        _ => Error::internal(error),
    }
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
