//! Bytes that have been looked at, as a type.

use std::ops::Range;
use std::sync::Arc;

use futures_util::TryStreamExt as _;

use super::disk::{Disk, TAIL};
use super::rules::PIECE;
use crate::disk::DiskFormat;
use crate::error::Result;
use crate::ports::{BlobReader, ByteStream, Extent};
use crate::size::ByteSize;

/// A blob's disk that the inspection took: what a tool that opens disks may be given.
///
/// Nothing else makes one, so that there is no way for bytes to such a tool without a verdict on these very bytes
/// (OSSA-2024-003). A blob never changes. The format is the one that they were found to be in, and is said to the tool, so that it
/// guesses nothing (OSSA-2026-002).
pub struct Verified {
    reader: Arc<dyn BlobReader>,
    format: DiskFormat,
    disk: Option<ByteSize>,
}

impl Verified {
    /// Looks at a blob that holds a disk in this format. Of its bytes only those are read that the format's rules ask for: the
    /// verdict is the one that all of them in a row would get.
    ///
    /// # Errors
    /// As of [`Inspector::finish`](super::Inspector::finish); what the reader says.
    pub async fn inspect(reader: Arc<dyn BlobReader>, format: DiskFormat) -> Result<Self> {
        let mut disk = Disk::new(format.as_str().to_owned());
        let size = reader.facts().size.bytes();
        let tail = size.saturating_sub(TAIL as u64);
        let mut at = 0;
        while at < size {
            let next = disk.looks_at().map_or(size, |next| next.max(at));
            if at < next && at < tail {
                let to = next.min(tail);
                disk.skip(to - at);
                at = to;
                continue;
            }
            let end = size.min(at + PIECE as u64);
            let mut pieces = reader.read(at..end);
            while let Some(piece) = pieces.try_next().await? {
                disk.feed(&piece)?;
            }
            at = end;
        }
        let disk = disk.finish()?.map(ByteSize::new);
        Ok(Self {
            reader,
            format,
            disk,
        })
    }

    /// The format that the bytes are in.
    pub const fn format(&self) -> DiskFormat {
        self.format
    }

    /// How many bytes there are.
    pub fn size(&self) -> ByteSize {
        self.reader.facts().size
    }

    /// How large the disk is that they describe, where that is known.
    pub const fn disk(&self) -> Option<ByteSize> {
        self.disk
    }

    /// The bytes of `range`, as [`BlobReader::read`] gives them.
    pub fn read(&self, range: Range<u64>) -> ByteStream {
        self.reader.read(range)
    }

    /// What is known to lie at `at`, as [`BlobReader::extent`] says.
    pub fn extent(&self, at: u64) -> Extent {
        self.reader.extent(at)
    }
}
