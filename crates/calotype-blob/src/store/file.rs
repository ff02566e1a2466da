//! Blobs in a directory of the local file system.
//!
//! ```text
//! ROOT/blobs/3f/3f1c...-...e2/body      the segments, each at index * slot; sparse
//!                            /manifest
//! ROOT/staged/3f1c...-...e2.9a0b1c2d3e4f5061/body
//! ```
//!
//! A name under `blobs` is the commit: the directory comes there by one rename, after everything in it is
//! durable. A name under `staged` is an attempt, or a blob on its way out; both are garbage once nobody
//! works on them. Each attempt has a random name of its own, so that one that was given up for dead and
//! still runs can neither write into its successor's file nor commit it.
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
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::ports::Entropy;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use tokio::task::{JoinHandle, spawn_blocking};

use super::body::{Body, Run};
use super::{BlobStore, Disk, Slot, Staged, Stored, io_error, read_error};
use crate::manifest;

const BODY: &str = "body";
const MANIFEST: &str = "manifest";

/// Bytes of the file system that image bodies leave free. The embedded catalog lives there too: if images took
/// the last block, not even a deletion could be written.
const SPARE: u64 = 16 << 20;

/// A directory of blobs. Only one store may work on it at a time, or several of the same service.
#[derive(Clone)]
pub struct FileStore {
    root: Arc<PathBuf>,
    disk: Disk,
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
        for path in [self.root.as_path(), &blobs, &self.staged()] {
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

    fn staged(&self) -> PathBuf {
        self.root.join("staged")
    }

    fn fan(&self, blob: BlobId) -> PathBuf {
        let first = blob.as_uuid().as_bytes()[0];
        self.root.join("blobs").join(format!("{first:02x}"))
    }

    fn home(&self, blob: BlobId) -> PathBuf {
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
        let body = match Body::create(&self.disk, &directory.join(BODY)) {
            Ok(body) => body,
            Err(error) => {
                // Best effort: what stays is named by `list_staged`.
                let _ = self.disk.remove(&directory);
                return Err(error);
            }
        };
        Ok(StagedFile {
            store: self.clone(),
            blob,
            directory,
            body: Arc::new(body),
            slot,
            at: None,
            run: Run::new(),
            sync: None,
            failed: false,
        })
    }

    fn open_now(&self, blob: BlobId) -> Result<Option<Arc<dyn Stored>>> {
        let home = self.home(blob);
        let opened = open_parts(&home);
        match opened {
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
    fn uncommit(&self, blob: BlobId) -> io::Result<()> {
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
    fn remove_staged(&self, blob: BlobId, path: &Path) -> io::Result<()> {
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

    fn free_space_now(&self) -> io::Result<ByteSize> {
        let space = rustix::fs::statvfs(self.root.as_path())?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        Ok(ByteSize::new(free.saturating_sub(SPARE)))
    }

    fn check_room(&self, length: u64) -> io::Result<()> {
        if self.free_space_now()?.bytes() < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn open_parts(home: &Path) -> io::Result<StoredFile> {
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
    Ok(StoredFile {
        manifest: Bytes::from(manifest),
        body: Arc::new(File::open(home.join(BODY))?),
    })
}

fn modified(path: &Path) -> io::Result<Timestamp> {
    let time = fs::symlink_metadata(path)?.modified()?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_micros(0).plus(since))
}

fn misplaced() -> Error {
    Error::invalid("The bytes do not fit their segment.")
}

/// Runs blocking work on tokio's threads for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::internal)?
}

#[async_trait::async_trait]
impl BlobStore for FileStore {
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Box<dyn Staged>> {
        let store = self.clone();
        blocking(move || {
            let staged = store.stage_now(blob, slot).map_err(io_error)?;
            Ok(Box::new(staged) as Box<dyn Staged>)
        })
        .await
    }

    async fn open(&self, blob: BlobId) -> Result<Option<Arc<dyn Stored>>> {
        let store = self.clone();
        blocking(move || store.open_now(blob)).await
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

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        let store = self.clone();
        blocking(move || store.free_space_now().map(Some).map_err(io_error)).await
    }
}

/// The segment that bytes came for, and how many.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    index: u32,
    filled: u64,
}

struct StagedFile {
    store: FileStore,
    blob: BlobId,
    directory: PathBuf,
    body: Arc<Body>,
    slot: u64,
    at: Option<Cursor>,
    run: Run,
    /// A sync in the background.
    sync: Option<JoinHandle<io::Result<()>>>,
    /// After the first error nothing is written or committed any more.
    failed: bool,
}

impl StagedFile {
    /// Refuses an attempt that failed before, and has it failed until the step about to be made is
    /// known to have succeeded: also where its future is dropped.
    fn begin_step(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::internal("this attempt has failed before"));
        }
        self.failed = true;
        Ok(())
    }

    async fn await_sync(&mut self) -> Result<()> {
        match self.sync.take() {
            Some(sync) => sync.await.map_err(Error::internal)?.map_err(io_error),
            None => Ok(()),
        }
    }

    fn start_sync(&mut self) {
        let body = Arc::clone(&self.body);
        self.sync = Some(spawn_blocking(move || body.sync()));
    }

    /// Runs `write` with the bytes that are gathered, away from tokio's own threads.
    async fn with_run(
        &mut self,
        write: impl FnOnce(&mut Run, &Body) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let mut run = std::mem::replace(&mut self.run, Run::new());
        let body = Arc::clone(&self.body);
        self.run = blocking(move || {
            write(&mut run, &body).map_err(io_error)?;
            Ok(run)
        })
        .await?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Staged for StagedFile {
    async fn append(&mut self, index: u32, bytes: Bytes) -> Result<()> {
        self.begin_step()?;
        let filled = match self.at {
            Some(at) if at.index == index => at.filled,
            Some(at) if at.index > index => return Err(misplaced()),
            _ => 0,
        };
        let end = filled + bytes.len() as u64;
        if end > self.slot {
            return Err(misplaced());
        }
        let begins = filled == 0;
        let offset = u64::from(index) * self.slot;
        let store = self.store.clone();
        self.with_run(move |run, body| {
            store.check_room(bytes.len() as u64)?;
            if begins {
                run.flush(body)?;
                run.begin(offset);
            }
            run.push(body, &bytes)
        })
        .await?;
        self.at = Some(Cursor { index, filled: end });
        self.failed = false;
        Ok(())
    }

    async fn finish_segment(&mut self, _index: u32) -> Result<()> {
        self.begin_step()?;
        self.with_run(Run::flush).await?;
        // The device works while the next segment is sealed, so that the sync of the commit is short. If
        // it still is at the last one, it is the bottleneck and gets no second order.
        if self.sync.as_ref().is_none_or(JoinHandle::is_finished) {
            self.await_sync().await?;
            self.start_sync();
        }
        self.failed = false;
        Ok(())
    }

    async fn commit(&mut self, manifest: Bytes) -> Result<()> {
        self.begin_step()?;
        self.with_run(Run::flush).await?;
        self.await_sync().await?;
        let (store, directory) = (self.store.clone(), self.directory.clone());
        let (body, blob) = (Arc::clone(&self.body), self.blob);
        blocking(move || commit(&store, blob, &directory, &body, &manifest)).await
    }

    async fn abandon(&mut self) -> Result<()> {
        self.failed = true;
        // Whether it succeeded does not matter any more, but it uses the file.
        let _ = self.await_sync().await;
        let (store, directory, blob) = (self.store.clone(), self.directory.clone(), self.blob);
        blocking(move || store.remove_staged(blob, &directory).map_err(io_error)).await
    }
}

fn commit(
    store: &FileStore,
    blob: BlobId,
    directory: &Path,
    body: &Body,
    manifest: &[u8],
) -> Result<()> {
    let disk = &store.disk;
    prepare(disk, directory, body, manifest).map_err(commit_error)?;
    // The rename is the commit. It replaces nothing: a directory that is there and not empty refuses it.
    disk.rename(directory, &store.home(blob))
        .map_err(commit_error)?;
    // Both names are made durable: the new one because the caller is about to be told so, the old one so
    // that no crash shows the blob twice.
    let durable = disk
        .sync_directory(&store.fan(blob))
        .and_then(|()| disk.sync_directory(&store.staged()));
    if let Err(error) = durable {
        // Nobody will be told of this blob, so it must not stay. Where that fails too, it is a whole
        // blob without a row, which the reconciler collects.
        if let Err(second) = store.uncommit(blob) {
            tracing::warn!(blob.id = %blob, error = %second, "a blob could not be taken back");
        }
        return Err(io_error(error));
    }
    Ok(())
}

fn prepare(disk: &Disk, directory: &Path, body: &Body, manifest: &[u8]) -> io::Result<()> {
    // The pages first: a manifest must never be on disk without what it describes.
    body.sync()?;
    let file = disk.make_file(&directory.join(MANIFEST))?;
    disk.write(&file, manifest, 0)?;
    disk.sync_file(&file)?;
    // Then the two names, before the directory gets the name that vouches for them.
    disk.sync_directory(directory)
}

fn commit_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, "The blob is there already.").with_context(error)
        }
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Conflict, "The write was discarded.").with_context(error)
        }
        _ => io_error(error),
    }
}

struct StoredFile {
    manifest: Bytes,
    body: Arc<File>,
}

#[async_trait::async_trait]
impl Stored for StoredFile {
    fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    async fn read(&self, slot: Slot, offset: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
        let body = Arc::clone(&self.body);
        blocking(move || {
            let offset = u64::from(slot.index) * slot.size + offset;
            body.read_exact_at(&mut buffer, offset)
                .map_err(read_error)?;
            Ok(buffer)
        })
        .await
    }
}
