//! Blobs in a directory of the local file system.
//!
//! ```text
//! ROOT/blobs/3f/3f1c...-...e2/body      the segments, each at index * slot; sparse
//!                            /manifest
//! ROOT/staged/3f1c...-...e2.9a0b1c2d3e4f5061/body
//!                                           /journal    the notes of finished segments, where there are any
//! ROOT/labels/catalog                      a label; a crash while one is written may leave a `.NAME.HEX.tmp`
//! ```
//!
//! A name under `blobs` is the commit: the directory comes there by one rename, after everything in it is
//! durable. A name under `staged` is an attempt, or a blob on its way out; both are garbage once nobody
//! works on them. Each attempt has a random name of its own, so that one that was given up for dead and
//! still runs can neither write into its successor's file nor commit it. Only what a dead attempt left is gone on
//! with, and the lock on its body says whether it is dead.
//!
//! # Crash consistency
//! See [`super`]. The order of the syncs is explained where they are made.
//!
//! # Failing disks
//! When a sync fails, the kernel may have dropped the pages that it could not write and will not say so
//! again: a second sync that succeeds means nothing. So the first failure, also one of a sync in the
//! background, ends the attempt for good.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::ports::Entropy;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use rustix::fs::{Advice, fadvise};
use tokio::task::spawn_blocking;

use super::body::Body;
use super::buffer::{BLOCK, Buffer};
use super::disk::{is_in_memory, open_to_read_unbuffered};
use super::staged_file::StagedFile;
use super::{
    BlobStore, Disk, LABEL_LIMIT, Slot, Staged, Stored, Use, check_label, io_error, read_error,
};
use crate::manifest;
use crate::threads::in_background;

pub(super) const BODY: &str = "body";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const JOURNAL: &str = "journal";

/// Bytes of the file system that image bodies leave free. The embedded catalog lives there too: if images took
/// the last block, not even a deletion could be written.
const SPARE: u64 = 16 << 20;

/// A directory of blobs. Only one store may work on it at a time, or several of the same service.
#[derive(Clone)]
pub struct FileStore {
    root: Arc<PathBuf>,
    pub(super) disk: Disk,
    entropy: Arc<dyn Entropy>,
}

impl FileStore {
    /// The store in `root`, which is made where it does not exist. Its directories are for their owner
    /// alone.
    ///
    /// # Errors
    /// Internal where the directories can't be made; StorageFull.
    pub fn open(root: &Path, entropy: Arc<dyn Entropy>) -> Result<Self> {
        Self::open_on(Disk::default(), root, entropy)
    }

    /// As [`FileStore::open`], on a disk that may fail on demand.
    ///
    /// # Errors
    /// See [`FileStore::open`].
    pub fn open_on(disk: Disk, root: &Path, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let store = Self {
            root: Arc::new(root.to_owned()),
            disk,
            entropy,
        };
        store.make_directories().map_err(io_error)?;
        Ok(store)
    }

    fn make_directories(&self) -> io::Result<()> {
        let blobs = self.root.join("blobs");
        for path in [self.root.as_path(), &blobs, &self.staged(), &self.labels()] {
            self.make_if_missing(path)?;
        }
        // The 256 directories are made now and not when they are needed: a commit has one name less to
        // make durable.
        for byte in 0..=u8::MAX {
            self.make_if_missing(&blobs.join(format!("{byte:02x}")))?;
        }
        self.disk.sync_directory(&blobs)?;
        self.disk.sync_directory(&self.root)?;
        match self.root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.disk.sync_directory(parent),
            _ => self.disk.sync_directory(Path::new(".")),
        }
    }

    fn make_if_missing(&self, path: &Path) -> io::Result<()> {
        match self.disk.make_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    pub(super) fn staged(&self) -> PathBuf {
        self.root.join("staged")
    }

    fn labels(&self) -> PathBuf {
        self.root.join("labels")
    }

    pub(super) fn fan(&self, blob: BlobId) -> PathBuf {
        let first = blob.as_uuid().as_bytes()[0];
        self.root.join("blobs").join(format!("{first:02x}"))
    }

    pub(super) fn home(&self, blob: BlobId) -> PathBuf {
        self.fan(blob).join(blob.to_string())
    }

    fn fresh_staged_name(&self, blob: BlobId) -> PathBuf {
        let mut tag = [0; 8];
        self.entropy.fill(&mut tag);
        self.staged().join(format!("{blob}.{}", hex::encode(tag)))
    }

    fn stage_now(&self, blob: BlobId, slot: u64) -> io::Result<StagedFile> {
        let directory = self.fresh_staged_name(blob);
        self.disk.make_directory(&directory)?;
        match Body::create(&self.disk, &directory.join(BODY)) {
            Ok(body) => Ok(StagedFile::new(self.clone(), blob, directory, body, slot)),
            Err(error) => {
                // Best effort: what stays is named by `list_staged`.
                let _ = self.disk.remove(&directory);
                Err(error)
            }
        }
    }

    /// Of what dead attempts at a blob left, the one that has most notes; the others are removed.
    fn resume_now(&self, blob: BlobId, slot: u64) -> io::Result<StagedFile> {
        let mut best: Option<StagedFile> = None;
        for (directory, owner) in self.staged_directories()? {
            if owner != blob {
                continue;
            }
            let Some(body) = Body::adopt(&self.disk, &directory.join(BODY))? else {
                continue;
            };
            let staged = StagedFile::new(self.clone(), blob, directory, body, slot);
            let staged = staged.with_notes()?;
            let worse = match best.take() {
                Some(best_yet) if best_yet.notes() >= staged.notes() => {
                    best = Some(best_yet);
                    Some(staged)
                }
                worse => {
                    best = Some(staged);
                    worse
                }
            };
            if let Some(worse) = worse {
                self.remove_staged(blob, worse.directory())?;
            }
        }
        match best {
            Some(best) if best.notes() > 0 => Ok(best),
            Some(empty) => {
                self.remove_staged(blob, empty.directory())?;
                self.stage_now(blob, slot)
            }
            None => self.stage_now(blob, slot),
        }
    }

    fn open_now(&self, blob: BlobId, purpose: Use) -> Result<Option<Arc<dyn Stored>>> {
        let home = self.home(blob);
        match open_parts(&home, purpose) {
            Ok(stored) => Ok(Some(Arc::new(stored))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // No such blob, or one that has lost a part?
                match fs::symlink_metadata(&home) {
                    Ok(_) => Err(Error::damaged(error)),
                    Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(other) => Err(read_error(other)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::damaged(error)),
            Err(error) => Err(read_error(error)),
        }
    }

    /// Moves a committed blob among the staged ones: from here on it is garbage.
    pub(super) fn uncommit(&self, blob: BlobId) -> io::Result<()> {
        match self
            .disk
            .rename(&self.home(blob), &self.fresh_staged_name(blob))
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        // Durable before the bytes go: or a power loss could show the old name with half of them.
        self.disk.sync_directory(&self.fan(blob))?;
        self.disk.sync_directory(&self.staged())
    }

    fn discard_now(&self, blob: BlobId) -> io::Result<()> {
        for (path, owner) in self.staged_directories()? {
            if owner == blob {
                self.remove_staged(owner, &path)?;
            }
        }
        Ok(())
    }

    /// Removes a staged directory, if it is still there.
    pub(super) fn remove_staged(&self, blob: BlobId, path: &Path) -> io::Result<()> {
        // Under a name that its attempt does not know. Otherwise a commit could rename the directory
        // while it is being emptied, and a blob without its bytes would be there.
        let doomed = self.fresh_staged_name(blob);
        match self.disk.rename(path, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        match self.disk.remove(&doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn staged_directories(&self) -> io::Result<Vec<(PathBuf, BlobId)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.staged())? {
            let entry = entry?;
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.split_once('.'))
                .and_then(|(id, _)| id.parse().ok());
            if let Some(owner) = owner {
                found.push((entry.path(), owner));
            }
        }
        Ok(found)
    }

    fn list_now(&self) -> io::Result<Vec<(BlobId, Timestamp)>> {
        let mut found = Vec::new();
        for byte in 0..=u8::MAX {
            let fan = self.root.join("blobs").join(format!("{byte:02x}"));
            for entry in fs::read_dir(fan)? {
                let entry = entry?;
                let Some(blob) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                // The manifest is the last thing written. Where it is lost the blob is still listed, or
                // nobody would ever find the damage.
                let time = match modified(&entry.path().join(MANIFEST)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        modified(&entry.path())
                    }
                    other => other,
                };
                match time {
                    Ok(time) => found.push((blob, time)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn list_staged_now(&self) -> io::Result<Vec<(BlobId, Timestamp)>> {
        let mut found = Vec::new();
        for (path, owner) in self.staged_directories()? {
            let time = match modified(&path.join(BODY)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => modified(&path),
                other => other,
            };
            match time {
                Ok(time) => found.push((owner, time)),
                // Removed while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Of several attempts at one blob, the last write counts.
        found.sort_unstable();
        found.reverse();
        found.dedup_by_key(|(blob, _)| *blob);
        found.reverse();
        Ok(found)
    }

    fn label_now(&self, name: &str) -> io::Result<Option<Bytes>> {
        let file = match File::open(self.labels().join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(LABEL_LIMIT as u64).read_to_end(&mut bytes)?;
        Ok(Some(Bytes::from(bytes)))
    }

    fn has_labels_now(&self) -> io::Result<bool> {
        for entry in std::fs::read_dir(self.labels())? {
            if !entry?.file_name().to_string_lossy().starts_with('.') {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn set_label_now(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut tag = [0; 8];
        self.entropy.fill(&mut tag);
        let labels = self.labels();
        let temporary = labels.join(format!(".{name}.{}.tmp", hex::encode(tag)));
        let file = self.disk.make_file(&temporary)?;
        let placed = (|| {
            self.disk.write(&file, bytes, 0)?;
            // The bytes before the name, and the name before anybody relies on it.
            self.disk.sync_file(&file)?;
            self.disk.rename(&temporary, &labels.join(name))
        })();
        if placed.is_err() {
            // Best effort: it has no name that anybody reads.
            let _ = fs::remove_file(&temporary);
        }
        placed?;
        self.disk.sync_directory(&labels)
    }

    fn free_space_now(&self) -> io::Result<ByteSize> {
        let space = rustix::fs::statvfs(self.root.as_path())?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        Ok(ByteSize::new(free.saturating_sub(SPARE)))
    }

    pub(super) fn check_room(&self, length: u64) -> io::Result<()> {
        if self.free_space_now()?.bytes() < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn open_parts(home: &Path, purpose: Use) -> io::Result<StoredFile> {
    let file = File::open(home.join(MANIFEST))?;
    let mut manifest = Vec::new();
    file.take(manifest::LIMIT as u64 + 1)
        .read_to_end(&mut manifest)?;
    if manifest.len() > manifest::LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the manifest is too long",
        ));
    }
    let body = home.join(BODY);
    let direct = match purpose {
        Use::Shared => None,
        Use::OnePass => open_to_read_unbuffered(&body)?,
    };
    let file = File::open(body)?;
    Ok(StoredFile {
        manifest: Bytes::from(manifest),
        body: Arc::new(OpenBody {
            in_memory: is_in_memory(&file),
            file,
            direct,
            forget: purpose == Use::OnePass,
        }),
    })
}

fn modified(path: &Path) -> io::Result<Timestamp> {
    let time = fs::symlink_metadata(path)?.modified()?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_micros(0).plus(since))
}

/// Runs blocking work on tokio's threads for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::internal)?
}

#[async_trait::async_trait]
impl BlobStore for FileStore {
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let store = self.clone();
        blocking(move || {
            let staged = store.stage_now(blob, slot).map_err(io_error)?;
            Ok(Arc::new(staged) as Arc<dyn Staged>)
        })
        .await
    }

    async fn resume(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let store = self.clone();
        blocking(move || {
            let staged = store.resume_now(blob, slot).map_err(io_error)?;
            Ok(Arc::new(staged) as Arc<dyn Staged>)
        })
        .await
    }

    async fn open(&self, blob: BlobId, purpose: Use) -> Result<Option<Arc<dyn Stored>>> {
        let store = self.clone();
        blocking(move || store.open_now(blob, purpose)).await
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        let store = self.clone();
        blocking(move || {
            store.uncommit(blob).map_err(io_error)?;
            // Also what an earlier attempt at deleting left.
            store.discard_now(blob).map_err(io_error)
        })
        .await
    }

    async fn discard(&self, blob: BlobId) -> Result<()> {
        let store = self.clone();
        blocking(move || store.discard_now(blob).map_err(io_error)).await
    }

    async fn list(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let store = self.clone();
        blocking(move || store.list_now().map_err(io_error)).await
    }

    async fn list_staged(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let store = self.clone();
        blocking(move || store.list_staged_now().map_err(io_error)).await
    }

    /// A directory whose file system is not mounted any more, or whose device is dead, has lost none of its files. What is
    /// left at its place may be such a directory too, and has no label.
    async fn is_there(&self) -> Result<()> {
        let store = self.clone();
        blocking(move || {
            let looked = store.disk.sync_directory(&store.staged());
            let labelled = looked.and_then(|()| store.has_labels_now());
            match labelled.map_err(calotype_core::Error::unavailable)? {
                true => Ok(()),
                false => Err(calotype_core::Error::unavailable(
                    "the store has no label: is its volume mounted?",
                )),
            }
        })
        .await
    }

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        let store = self.clone();
        blocking(move || store.free_space_now().map(Some).map_err(io_error)).await
    }

    async fn label(&self, name: &str) -> Result<Option<Bytes>> {
        check_label(name, 0)?;
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.label_now(&name).map_err(io_error)).await
    }

    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()> {
        check_label(name, bytes.len())?;
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.set_label_now(&name, &bytes).map_err(io_error)).await
    }
}

struct StoredFile {
    manifest: Bytes,
    body: Arc<OpenBody>,
}

struct OpenBody {
    file: File,
    /// Reads past the page cache, where that is wanted and possible.
    direct: Option<File>,
    /// Whether what was read is not wanted in the page cache.
    forget: bool,
    /// See [`is_in_memory`].
    in_memory: bool,
}

impl OpenBody {
    fn read(&self, offset: u64, length: usize, buffer: &mut Buffer) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            let before = usize::try_from(offset % BLOCK as u64).map_err(io::Error::other)?;
            let blocks = buffer.blocks(before, length);
            return read_blocks(direct, blocks, before + length, offset - before as u64);
        }
        self.file.read_exact_at(buffer.room(length), offset)?;
        if self.forget
            && let Some(length) = NonZeroU64::new(length as u64)
        {
            // Only advice: that it was not taken is no matter.
            let _ = fadvise(&self.file, offset, Some(length), Advice::DontNeed);
        }
        Ok(())
    }
}

/// Reads whole blocks, of which the file must have `wanted` bytes.
fn read_blocks(file: &File, blocks: &mut [u8], wanted: usize, offset: u64) -> io::Result<()> {
    let mut read = 0;
    while read < wanted {
        match file.read_at(&mut blocks[read..], offset + read as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl Stored for StoredFile {
    fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    async fn read(
        &self,
        slot: Slot,
        offset: u64,
        length: usize,
        mut buffer: Buffer,
    ) -> Result<Buffer> {
        let offset = u64::from(slot.index) * slot.size + offset;
        if self.body.in_memory && in_background() {
            self.body
                .read(offset, length, &mut buffer)
                .map_err(read_error)?;
            return Ok(buffer);
        }
        let body = Arc::clone(&self.body);
        blocking(move || {
            body.read(offset, length, &mut buffer).map_err(read_error)?;
            Ok(buffer)
        })
        .await
    }
}
