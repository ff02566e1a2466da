//! The system calls that change a file store, one function for each, so that a test can make any of
//! them fail.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

/// A change to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A directory is made.
    MakeDirectory,
    /// A file is made.
    MakeFile,
    /// A file that is there is opened, to be written.
    OpenFile,
    /// A made file is opened once more, for writes that go past the page cache.
    OpenUnbuffered,
    /// Bytes are written.
    Write,
    /// A file's bytes are made durable.
    SyncFile,
    /// A directory's names are made durable.
    SyncDirectory,
    /// A directory is given another name.
    Rename,
    /// A directory and what it holds are removed.
    Remove,
}

type Script = dyn Fn(Step) -> io::Result<()> + Send + Sync;

/// The disk.
#[derive(Clone, Default)]
pub struct Disk {
    script: Option<Arc<Script>>,
}

impl Disk {
    /// A disk that fails on demand: `script` is asked before each step. For tests.
    pub fn scripted(script: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            script: Some(Arc::new(script)),
        }
    }

    fn before(&self, step: Step) -> io::Result<()> {
        match &self.script {
            Some(script) => script(step),
            None => Ok(()),
        }
    }

    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.before(Step::MakeDirectory)?;
        DirBuilder::new().mode(0o700).create(path)
    }

    pub(super) fn make_file(&self, path: &Path) -> io::Result<File> {
        self.before(Step::MakeFile)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    /// A file that is there, to be written.
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        self.before(Step::OpenFile)?;
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// A made file once more, for writes that go past the page cache; nothing where the file system has none.
    pub(super) fn open_unbuffered(&self, path: &Path) -> io::Result<Option<File>> {
        self.before(Step::OpenUnbuffered)
            .and_then(|()| unbuffered(OpenOptions::new().write(true), path))
            .map_or_else(none_where_refused, Ok)
    }

    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.before(Step::Write)?;
        file.write_all_at(bytes, offset)
    }

    pub(super) fn sync_file(&self, file: &File) -> io::Result<()> {
        self.before(Step::SyncFile)?;
        // The data and what is needed to find it (size, extents); not the times.
        file.sync_data()
    }

    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.before(Step::SyncDirectory)?;
        File::open(path)?.sync_all()
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Step::Rename)?;
        fs::rename(from, to)
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(Step::Remove)?;
        fs::remove_dir_all(path)
    }
}

/// A file that is read past the page cache; nothing where the file system has no such way.
pub(super) fn open_to_read_unbuffered(path: &Path) -> io::Result<Option<File>> {
    unbuffered(OpenOptions::new().read(true), path).map_or_else(none_where_refused, Ok)
}

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Whether a file is in memory: then there is as a rule no device to wait for, and a thread in the background copies a piece
/// itself rather than to hand it over to another.
pub(super) fn is_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type == TMPFS)
}

fn unbuffered(options: &mut OpenOptions, path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    options.custom_flags(flags).open(path).map(Some)
}

fn none_where_refused(error: io::Error) -> io::Result<Option<File>> {
    match error.kind() {
        io::ErrorKind::InvalidInput => Ok(None),
        _ => Err(error),
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}
