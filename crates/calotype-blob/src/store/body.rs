//! A blob's body file while it is being written.
//!
//! What is written here is large, is made durable before anyone reads it, and is read later or never. So it goes
//! past the page cache, where the file system allows that (`O_DIRECT`): an upload then neither evicts what
//! others read nor pays for the copy. Such writes begin at, end at and come from multiples of [`BLOCK`]. Bytes that
//! come otherwise, and what is left at a segment's end, go the usual way.
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
use super::buffer::BLOCK;
use super::disk::is_in_memory;

/// A body file.
pub(super) struct Body {
    disk: Disk,
    file: File,
    direct: Option<File>,
    /// Set once the file system has refused an unbuffered write.
    refused: AtomicBool,
    /// See [`is_in_memory`].
    pub(super) in_memory: bool,
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
            direct: disk.open_unbuffered(path)?,
            in_memory: is_in_memory(&file),
            file,
            refused: AtomicBool::new(false),
        })
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync_file(&self.file)
    }

    /// Writes bytes of a segment, all that comes before them being written.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let whole = bytes.len() - bytes.len() % BLOCK;
        let aligned =
            offset.is_multiple_of(BLOCK as u64) && bytes.as_ptr().addr().is_multiple_of(BLOCK);
        if !aligned || whole == 0 {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use rustix::io::Errno;

    use super::*;
    use crate::store::{Buffer, Step};

    const PIECES: [&[usize]; 8] = [
        &[],
        &[1],
        &[BLOCK - 1],
        &[BLOCK],
        &[BLOCK + 1],
        &[BLOCK - 1, 1, 3 * BLOCK],
        &[3 * BLOCK, 1, BLOCK],
        &[7, 2 * BLOCK, 5 * BLOCK, 9],
    ];

    /// Writes `pieces` from `offset` on, from memory that is aligned or not, and returns what the file then has from
    /// there.
    fn written(disk: &Disk, offset: u64, pieces: &[usize], aligned: bool) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("body");
        let body = Body::create(disk, &path).unwrap();
        let all = expected(pieces);
        let mut at = 0;
        for length in pieces {
            let mut buffer = Buffer::default();
            let skip = usize::from(!aligned);
            let piece = &mut buffer.room(skip + length)[skip..];
            piece.copy_from_slice(&all[at..at + length]);
            body.write(piece, offset + at as u64).unwrap();
            at += length;
        }
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

    #[test]
    fn what_is_written_is_in_the_file_byte_for_byte() {
        for offset in [0, BLOCK as u64, 3 * BLOCK as u64, 1, BLOCK as u64 + 32] {
            for pieces in PIECES {
                for aligned in [true, false] {
                    let found = written(&Disk::default(), offset, pieces, aligned);
                    assert!(
                        found == expected(pieces),
                        "{pieces:?} at {offset}, {aligned}"
                    );
                }
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
            let pieces = &[8 * BLOCK, 9 * BLOCK + 1];
            assert!(
                written(&disk, 0, pieces, true) == expected(pieces),
                "{refused:?}"
            );
        }
    }
}
