//! A blob's body file while it is being written.
//!
//! What is written here is large, is made durable before anyone reads it, and is read later or never. So it goes
//! past the page cache, where the file system allows that (`O_DIRECT`): an upload then neither evicts what
//! others read nor pays for the copy. Such writes begin at, end at and come from multiples of [`BLOCK`]; the
//! bytes are gathered into a buffer that is aligned so, and what is left at a segment's end goes the usual way.
//!
//! A body is locked (`flock`) by whoever writes it. The lock ends with the process, however that ends: so whoever
//! gets the lock of an attempt that it did not begin knows that nobody writes there any more.
//!
//! # Consistency
//! The two ways never touch the same block, as long as no two segments share one. Where they do, because a
//! slot is no multiple of a block, everything goes the usual way.
//!
//! # Crash consistency
//! Nothing is durable before [`Body::sync`] has returned.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::Disk;
use super::buffer::{BLOCK, Buffer};

/// Bytes that are gathered for one write: as many blocks as a virtual disk takes in one request, or in two full ones.
/// Wherever in memory they lie, a request has an entry for each, and 254 or 126 at most (virtio's `seg_max` for rings
/// of 256 and 128); one of 1 MiB is two, and the second of them is small.
const RUN: usize = 248 * BLOCK;

/// A body file.
pub(super) struct Body {
    disk: Disk,
    file: File,
    direct: Option<File>,
    /// Set once the file system has refused an unbuffered write.
    refused: AtomicBool,
}

impl Body {
    /// Makes the file, which must not exist.
    pub(super) fn create(disk: &Disk, path: &Path) -> io::Result<Self> {
        let file = disk.make_file(path)?;
        // A file system that knows no locks only loses the resuming of what a crash left.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Self::over(disk, file, path)
    }

    /// Opens the body of an attempt that somebody else began; nothing where it may still be written.
    pub(super) fn adopt(disk: &Disk, path: &Path) -> io::Result<Option<Self>> {
        let file = disk.open_file(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Self::over(disk, file, path).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn over(disk: &Disk, file: File, path: &Path) -> io::Result<Self> {
        Ok(Self {
            disk: disk.clone(),
            file,
            direct: disk.open_unbuffered(path)?,
            refused: AtomicBool::new(false),
        })
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync_file(&self.file)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let whole = bytes.len() - bytes.len() % BLOCK;
        if !offset.is_multiple_of(BLOCK as u64) || whole == 0 {
            return self.disk.write(&self.file, bytes, offset);
        }
        self.write_blocks(&bytes[..whole], offset)?;
        if whole == bytes.len() {
            return Ok(());
        }
        self.disk
            .write(&self.file, &bytes[whole..], offset + whole as u64)
    }

    fn write_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct.as_ref()
            && !self.refused.load(Ordering::Relaxed)
        {
            match self.disk.write(direct, blocks, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        self.disk.write(&self.file, blocks, offset)
    }
}

/// The bytes of one segment on their way into the body.
pub(super) struct Run {
    buffer: Buffer,
    /// How much of the buffer is filled.
    filled: usize,
    /// Where its first byte goes.
    offset: u64,
}

impl Run {
    /// A run whose first byte goes to `offset`, without memory yet.
    pub(super) fn at(offset: u64) -> Self {
        Self {
            buffer: Buffer::default(),
            filled: 0,
            offset,
        }
    }

    /// Adds bytes, and writes what is complete.
    pub(super) fn push(&mut self, body: &Body, mut bytes: &[u8]) -> io::Result<()> {
        if self.buffer.bytes().is_empty() {
            self.buffer.room(RUN);
        }
        while !bytes.is_empty() {
            let room = &mut self.buffer.bytes_mut()[self.filled..];
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == RUN {
                self.flush(body)?;
            }
        }
        Ok(())
    }

    /// Writes what is gathered: after it the segment goes on only if its bytes are a multiple of [`RUN`].
    pub(super) fn flush(&mut self, body: &Body) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        body.write(&self.buffer.bytes()[..self.filled], self.offset)?;
        self.offset += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use rustix::io::Errno;

    use super::*;
    use crate::store::Step;

    /// Writes `pieces` from `offset` on, and returns what the file then has from there.
    fn written(disk: &Disk, offset: u64, pieces: &[usize]) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("body");
        let body = Body::create(disk, &path).unwrap();
        let mut run = Run::at(offset);
        let mut next = 0_u8;
        for length in pieces {
            let piece: Vec<u8> = (0..*length)
                .map(|_| {
                    next = next.wrapping_mul(5).wrapping_add(3);
                    next
                })
                .collect();
            run.push(&body, &piece).unwrap();
        }
        run.flush(&body).unwrap();
        body.sync().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        bytes.get(offset as usize..).unwrap_or_default().to_vec()
    }

    fn expected(pieces: &[usize]) -> Vec<u8> {
        let mut next = 0_u8;
        (0..pieces.iter().sum())
            .map(|_| {
                next = next.wrapping_mul(5).wrapping_add(3);
                next
            })
            .collect()
    }

    const PIECES: [&[usize]; 9] = [
        &[],
        &[1],
        &[BLOCK - 1],
        &[BLOCK],
        &[BLOCK + 1],
        &[RUN - 1, 1, 1],
        &[RUN],
        &[7, RUN, RUN, 9],
        &[3 * RUN + 2 * BLOCK + 5],
    ];

    #[test]
    fn what_is_pushed_is_in_the_file_byte_for_byte() {
        for offset in [0, BLOCK as u64, 3 * RUN as u64, 1, BLOCK as u64 + 32] {
            for pieces in PIECES {
                let found = written(&Disk::default(), offset, pieces);
                assert!(found == expected(pieces), "{pieces:?} at {offset}");
            }
        }
    }

    #[test]
    fn a_file_system_without_unbuffered_writes_takes_them_the_usual_way() {
        for refused in [Step::OpenUnbuffered, Step::Write] {
            let first = Arc::new(Mutex::new(true));
            let disk = Disk::scripted(move |step| {
                let mut first = first.lock().unwrap();
                if step == refused && std::mem::take(&mut *first) {
                    return Err(io::Error::from(Errno::INVAL));
                }
                Ok(())
            });
            let pieces = &[RUN, RUN + BLOCK + 1];
            assert!(written(&disk, 0, pieces) == expected(pieces), "{refused:?}");
        }
    }
}
