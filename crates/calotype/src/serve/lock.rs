//! One service on one data directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::ServeOptions;
use crate::exit::Failure;

/// Held while the service runs. The kernel releases it when the process ends, however it ends.
pub(crate) struct DataDirLock {
    _file: File,
}

/// Makes the data directory, and locks it where the catalog is embedded in it. With PostgreSQL many nodes may
/// share a directory.
///
/// # Errors
/// Where another process has the directory, or it can't be made.
pub(crate) fn acquire_if_embedded(options: &ServeOptions) -> Result<Option<DataDirLock>, Failure> {
    let data_dir = &options.data_dir;
    make_private_dir(data_dir)?;
    if options
        .config
        .catalog
        .url
        .as_deref()
        .is_some_and(|url| url.starts_with("postgres"))
    {
        return Ok(None);
    }
    acquire(data_dir).map(Some)
}

/// Locks the data directory.
///
/// # Errors
/// Where another process has it.
pub(super) fn acquire(data_dir: &Path) -> Result<DataDirLock, Failure> {
    try_acquire(data_dir)?.ok_or_else(|| in_use(data_dir, "is in use by another calotype process"))
}

/// As [`acquire`]; none where another process has it.
pub(super) fn try_acquire(data_dir: &Path) -> Result<Option<DataDirLock>, Failure> {
    lock(&data_dir.join("calotype.lock"))
}

/// Locks the data directory against other moves of its catalog, and against nothing else.
///
/// # Errors
/// Where another process has it.
pub(super) fn acquire_for_move(data_dir: &Path) -> Result<DataDirLock, Failure> {
    let locked = lock(&data_dir.join("calotype.move.lock"))?;
    locked.ok_or_else(|| in_use(data_dir, "is being moved by another process already"))
}

fn in_use(data_dir: &Path, why: &str) -> Failure {
    Failure::new(format!("the data directory {} {why}", data_dir.display()))
}

fn lock(path: &Path) -> Result<Option<DataDirLock>, Failure> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::new(format!("can't open {}: {error}", path.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(DataDirLock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Failure::new(format!(
            "can't lock {}: {error}",
            path.display()
        ))),
    }
}

/// Makes a directory that only this user can enter, and its parents.
fn make_private_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            Failure::new(format!(
                "can't make the directory {}: {error}",
                path.display()
            ))
        })
}
