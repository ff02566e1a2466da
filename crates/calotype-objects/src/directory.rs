//! Buckets as directories, objects as files below them.
//!
//! # Guarantees
//! A path is walked from directory to directory, and no step follows a symbolic link: what lies outside a bucket's
//! directory can't be named. Only regular files are objects. A device, a FIFO or a directory in an object's place is none,
//! and is not waited for.
//!
//! An object's version is its file's number, size and times, as the system keeps them. It is asked for again with each
//! piece of a read: a file that was written to, replaced or removed meanwhile ends the read with an error. Two writes within one
//! tick of the system's clock (some milliseconds) are one to it.
//!
//! # Crash consistency
//! An object is written in a directory beside the buckets (`.staged`), which no bucket's name can be, made durable there
//! and then linked to its place, where there must be nothing. A crash leaves a staged file; the next start removes it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::id::JobId;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{ByteStream, Entropy, ObjectFacts, ObjectWriter, Objects};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};
use futures_util::{StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use crate::copy::copy_in;
use crate::{changed, no_bucket, no_object, taken};

/// Bytes read at once: what a blob is written in.
const PIECE: u64 = 1 << 20;

/// Pieces that are read ahead.
const AHEAD: usize = 4;

const STAGED: &str = ".staged";

/// The extended attribute that says which job made an object.
const MARK: &str = "user.calotype.job";

/// Whoever may read the service's files may read these.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);
const DIRECTORY_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// Buckets that are the directories below one.
#[derive(Clone)]
pub struct Directory {
    root: Arc<OwnedFd>,
    staged: Arc<OwnedFd>,
    entropy: Arc<dyn Entropy>,
}

impl Directory {
    /// The buckets below `path`, which is made where it is missing. What a dead process left staged is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, entropy: Arc<dyn Entropy>) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        make_directory(&root, STAGED)?;
        let staged = open_directory(&root, STAGED)?;
        sweep(&staged)?;
        Ok(Self {
            root: Arc::new(root),
            staged: Arc::new(staged),
            entropy,
        })
    }

    fn bucket(&self, at: &ObjectAddress) -> Result<OwnedFd> {
        open_directory(&self.root, at.bucket()).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM => no_bucket(),
            error => io_error(error.into()),
        })
    }

    /// The object's file, open, with what is known of it.
    fn object(&self, at: &ObjectAddress) -> Result<(File, ObjectFacts)> {
        let opened = open_parent(self.bucket(at)?, at.key()).and_then(|(parent, name)| {
            // Nonblocking, so that a FIFO in the file's place is refused rather than waited for.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, name, flags, Mode::empty())
        });
        let file = File::from(opened.map_err(object_error)?);
        let facts = facts_of(&file)?.ok_or_else(no_object)?;
        Ok((file, facts))
    }

    /// As [`Self::object`]; one that is not as it was is none.
    fn pinned(&self, at: &ObjectAddress, facts: &ObjectFacts) -> Result<File> {
        let (file, now) = self.object(at)?;
        if now == *facts {
            Ok(file)
        } else {
            Err(changed())
        }
    }

    /// Gives a file without a name the object's, where it can have it: not on another file system.
    fn adopt(&self, at: &ObjectAddress, file: &File) -> Result<Option<ObjectFacts>> {
        rustix::fs::fchmod(file, FILE_MODE).map_err(|error| io_error(error.into()))?;
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        match link(CWD, &itself, AtFlags::SYMLINK_FOLLOW, self.bucket(at)?, at) {
            Ok(()) => {}
            Err(Linking::Impossible) => return Ok(None),
            Err(Linking::Failed(error)) => return Err(error),
        }
        let facts = facts_of(file)?;
        facts
            .ok_or_else(|| Error::internal("a written object is no regular file"))
            .map(Some)
    }

    fn stage(&self, at: &ObjectAddress, job: Option<JobId>) -> Result<Writing> {
        let bucket = self.bucket(at)?;
        if is_taken(self.bucket(at)?, at.key())? {
            return Err(taken());
        }
        loop {
            let mut random = [0; 16];
            self.entropy.fill(&mut random);
            let name = hex::encode(random);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&*self.staged, name.as_str(), flags, FILE_MODE)
                .map_err(|error| io_error(error.into()))?;
            let file = File::from(file);
            // The lock says that somebody still writes it. Another's start may have been between.
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if let Err(error) = locked
                && error != Errno::WOULDBLOCK
            {
                // No file system to stage in: another turn would end as this one.
                let _ = rustix::fs::unlinkat(&*self.staged, name.as_str(), AtFlags::empty());
                return Err(io_error(error.into()));
            }
            if locked.is_ok() && file.metadata().map_err(io_error)?.nlink() > 0 {
                return Ok(Writing {
                    directory: self.clone(),
                    at: at.clone(),
                    bucket: Arc::new(bucket),
                    file: Arc::new(file),
                    name,
                    job,
                });
            }
        }
    }
}

#[async_trait::async_trait]
impl Objects for Directory {
    async fn look(&self, at: &ObjectAddress) -> Result<ObjectFacts> {
        let (this, at) = (self.clone(), at.clone());
        blocking(move || Ok(this.object(&at)?.1)).await
    }

    fn read(&self, at: &ObjectAddress, facts: &ObjectFacts, range: Range<u64>) -> ByteStream {
        let (this, at, facts) = (self.clone(), at.clone(), facts.clone());
        let opening = async move {
            let pinned = facts.clone();
            let file = blocking(move || this.pinned(&at, &pinned)).await?;
            Ok(pieces(Arc::new(file), facts, range))
        };
        Box::pin(opening.try_flatten_stream())
    }

    async fn create(
        &self,
        at: &ObjectAddress,
        _: ByteSize,
        job: Option<&JobId>,
    ) -> Result<Box<dyn ObjectWriter>> {
        let (this, at, job) = (self.clone(), at.clone(), job.cloned());
        let staged = blocking(move || this.stage(&at, job));
        Ok(Box::new(staged.await?))
    }

    async fn put(
        &self,
        at: &ObjectAddress,
        file: Arc<File>,
        job: Option<&JobId>,
    ) -> Result<ObjectFacts> {
        let (this, place, whole) = (self.clone(), at.clone(), Arc::clone(&file));
        make_durable(&file, job).await?;
        let adopted = blocking(move || this.adopt(&place, &whole));
        match adopted.await? {
            Some(facts) => Ok(facts),
            None => copy_in(self, at, file, job).await,
        }
    }

    async fn made_by(&self, at: &ObjectAddress, job: &JobId) -> Result<Option<ObjectFacts>> {
        let (this, at, job) = (self.clone(), at.clone(), job.clone());
        blocking(move || {
            let (file, facts) = this.object(&at)?;
            let mut told = [0; 64];
            // Whatever else is there, or that nothing can be, is not this job's.
            let length = rustix::fs::fgetxattr(&file, MARK, &mut told).unwrap_or(0);
            let is_its = told.get(..length) == Some(job.as_str().as_bytes());
            Ok(is_its.then_some(facts))
        })
        .await
    }

    async fn remove(&self, at: &ObjectAddress, facts: &ObjectFacts) -> Result<()> {
        let (this, at, facts) = (self.clone(), at.clone(), facts.clone());
        blocking(move || {
            this.pinned(&at, &facts)?;
            let (parent, name) = open_parent(this.bucket(&at)?, at.key()).map_err(object_error)?;
            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(object_error)?;
            rustix::fs::fsync(&parent).map_err(|error| io_error(error.into()))
        })
        .await
    }
}

/// The file's bytes in order, as long as it is the same.
fn pieces(file: Arc<File>, facts: ObjectFacts, range: Range<u64>) -> ByteStream {
    let end = range.end;
    let starts = range.step_by(PIECE as usize);
    let reading = Arc::clone(&file);
    let pinned = facts.clone();
    let bytes = stream::iter(starts).map(move |from| {
        let (file, facts) = (Arc::clone(&reading), pinned.clone());
        let length = PIECE.min(end - from);
        blocking(move || {
            let piece = read_at(&file, from, length as usize)?;
            check_same(&file, &facts)?;
            Ok(piece)
        })
    });
    // Once more when all is read: pieces are read out of order.
    let same = blocking(move || check_same(&file, &facts).map(|()| Bytes::new()));
    let same = stream::once(same).try_filter(|_| std::future::ready(false));
    Box::pin(bytes.buffered(AHEAD).chain(same))
}

fn check_same(file: &File, facts: &ObjectFacts) -> Result<()> {
    match facts_of(file)? {
        Some(now) if now == *facts => Ok(()),
        _ => Err(changed()),
    }
}

fn read_at(file: &File, from: u64, length: usize) -> Result<Bytes> {
    let mut piece = vec![0; length];
    file.read_exact_at(&mut piece, from)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => io_error(error),
        })?;
    Ok(Bytes::from(piece))
}

/// What is known of an open file; none where it is no regular one.
fn facts_of(file: &File) -> Result<Option<ObjectFacts>> {
    let metadata = file.metadata().map_err(io_error)?;
    let version = format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    );
    let facts = ObjectFacts {
        size: ByteSize::new(metadata.len()),
        version,
    };
    Ok(metadata.is_file().then_some(facts))
}

/// An object that is being written.
struct Writing {
    directory: Directory,
    at: ObjectAddress,
    bucket: Arc<OwnedFd>,
    file: Arc<File>,
    name: String,
    job: Option<JobId>,
}

#[async_trait::async_trait]
impl ObjectWriter for Writing {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            use io::Write as _;
            (&*file).write_all(&bytes).map_err(io_error)
        })
        .await
    }

    async fn finish(self: Box<Self>) -> Result<ObjectFacts> {
        make_durable(&self.file, self.job.as_ref()).await?;
        blocking(move || self.publish()).await
    }
}

impl Writing {
    fn publish(&self) -> Result<ObjectFacts> {
        let bucket = self.bucket.try_clone().map_err(io_error)?;
        let staged = self.directory.staged.as_fd();
        let flags = AtFlags::empty();
        match link(staged, &self.name, flags, bucket, &self.at) {
            Ok(()) => {}
            Err(Linking::Impossible) => {
                return Err(Error::internal("a bucket is on a file system of its own"));
            }
            Err(Linking::Failed(error)) => return Err(error),
        }
        // Before the version is asked for: it counts the names.
        self.unlink();
        let facts = facts_of(&self.file)?;
        facts.ok_or_else(|| Error::internal("a written object is no regular file"))
    }

    fn unlink(&self) {
        let removed = rustix::fs::unlinkat(
            &*self.directory.staged,
            self.name.as_str(),
            AtFlags::empty(),
        );
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(%error, "a staged object is left behind"),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Notes on a file which job makes it. Not every file system takes notes.
fn mark(file: &File, job: Option<&JobId>) {
    let Some(job) = job else {
        return;
    };
    let noted = rustix::fs::fsetxattr(file, MARK, job.as_str().as_bytes(), XattrFlags::empty());
    if let Err(error) = noted {
        tracing::debug!(%error, "an object can't tell which job made it");
    }
}

/// Why a file did not get an object's name.
enum Linking {
    /// It can't have it.
    Impossible,
    Failed(Error),
}

/// Makes a file durable, with a note which job makes it. By itself, so that who gives it up meanwhile gives it no name.
async fn make_durable(file: &Arc<File>, job: Option<&JobId>) -> Result<()> {
    let (file, job) = (Arc::clone(file), job.cloned());
    blocking(move || {
        mark(&file, job.as_ref());
        file.sync_all().map_err(io_error)
    })
    .await
}

/// Gives a durable file the object's name, durably, where there must be nothing.
fn link(
    from: BorrowedFd<'_>,
    path: &str,
    flags: AtFlags,
    bucket: OwnedFd,
    at: &ObjectAddress,
) -> std::result::Result<(), Linking> {
    let failed = |error: Errno| Linking::Failed(object_error(error));
    let (parent, name) = make_parent(bucket, at.key()).map_err(failed)?;
    rustix::fs::linkat(from, path, &parent, name, flags).map_err(|error| match error {
        Errno::EXIST => Linking::Failed(taken()),
        Errno::XDEV | Errno::NOENT => Linking::Impossible,
        error => failed(error),
    })?;
    let durable = rustix::fs::fsync(&parent);
    durable.map_err(|error| Linking::Failed(io_error(error.into())))
}

fn open_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Makes a directory, durably; one that is there is as good.
fn make_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(parent, name, DIRECTORY_MODE) {
        Ok(()) => rustix::fs::fsync(parent),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The directory that a key's last part is in.
fn open_parent(bucket: OwnedFd, key: &str) -> rustix::io::Result<(OwnedFd, &str)> {
    let (mut parents, name) = split(key);
    let parent = parents.try_fold(bucket, |parent, name| open_directory(&parent, name))?;
    Ok((parent, name))
}

/// As [`open_parent`], of directories that are made where they are missing.
fn make_parent(bucket: OwnedFd, key: &str) -> rustix::io::Result<(OwnedFd, &str)> {
    let (mut parents, name) = split(key);
    let parent = parents.try_fold(bucket, |parent, name| {
        make_directory(&parent, name)?;
        open_directory(&parent, name)
    })?;
    Ok((parent, name))
}

/// The parts of a key before its last, and the last.
fn split(key: &str) -> (impl Iterator<Item = &str>, &str) {
    let (parents, name) = key.rsplit_once('/').unwrap_or(("", key));
    (parents.split('/').filter(|part| !part.is_empty()), name)
}

/// Whether there is anything in an object's place.
fn is_taken(bucket: OwnedFd, key: &str) -> Result<bool> {
    let found = open_parent(bucket, key).and_then(|(parent, name)| {
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
    });
    match found {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(object_error(error)),
    }
}

/// Removes staged files that nobody writes any more.
fn sweep(staged: &OwnedFd) -> rustix::io::Result<()> {
    for entry in rustix::fs::Dir::read_from(staged)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(staged, name, flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match rustix::fs::unlinkat(staged, name, AtFlags::empty()) {
                // Its writer removed it meanwhile.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The system's error on the way to an object, or in its place.
fn object_error(error: Errno) -> Error {
    match error {
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::LOOP
        | Errno::ACCESS
        | Errno::PERM
        | Errno::ISDIR
        | Errno::NAMETOOLONG
        | Errno::INVAL
        | Errno::NXIO => no_object(),
        error => io_error(error.into()),
    }
}

fn io_error(error: io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => Error::unavailable(error),
        _ => Error::storage(error, "The bucket is full."),
    }
}

/// Runs blocking work on tokio's threads for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::internal)?
}
