//! The file that holds the service's root keys: one line of text for each, mode 0600. The first is the current one.
//!
//! # Crash consistency
//! The file appears whole or not at all: it is written and synced under a temporary name, then linked to
//! its own name, which fails where the name is taken. So of two processes that start at once on an empty
//! directory, both use the key of the one that linked first. It is replaced by a rename of a file that was synced. A
//! crash in between leaves a temporary file (`.NAME.HEX.tmp`), with a key that nothing was ever sealed under, or with
//! those that are in the file itself; the next change removes it. Who changes the file holds the lock on `.NAME.lock`
//! meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use calotype_core::ports::Entropy;
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::cipher::Material;
use crate::ring::{MAX_ROOTS, RootRing, line_of};

/// More than a file with as many keys as there may be.
const LIMIT: u64 = 128 * MAX_ROOTS as u64;

/// Why a file of root keys is refused. The text names the file's fault, never its content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("it can't be read or written")]
    Io(#[source] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it may be read by others than its owner (mode {0:04o}): want 0600")]
    Exposed(u32),
    #[error("it does not hold root keys")]
    Malformed,
    #[error("it is not there")]
    Gone,
    #[error("it holds as many root keys as it may: retire those that wrap nothing any more")]
    Full,
}

/// Who may read a file of root keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner alone.
    Owner,
    /// Whoever its directory lets in: systemd sees to that.
    Directory,
}

/// The root keys in a file; none where there is no file.
pub(crate) fn read(path: &Path, readers: Readers) -> Result<Option<RootRing>, KeyFileError> {
    // Nonblocking, so that a FIFO in the file's place is refused rather than waited for.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(KeyFileError::Io)?,
    };
    // Of the open file, not of the path: what is checked is what is read.
    let metadata = file.metadata().map_err(KeyFileError::Io)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if readers == Readers::Owner && mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed(mode));
    }
    // Room for all of it: what grows leaves copies behind that nobody erases.
    let mut text = Zeroizing::new(String::with_capacity(LIMIT as usize + 1));
    file.take(LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => KeyFileError::Malformed,
            _ => KeyFileError::Io(error),
        })?;
    if text.len() as u64 > LIMIT {
        return Err(KeyFileError::Malformed);
    }
    // A line that was cut off is no line.
    if readers == Readers::Owner && !text.ends_with('\n') {
        return Err(KeyFileError::Malformed);
    }
    let ring = match readers {
        Readers::Owner => RootRing::of_lines(&text),
        Readers::Directory => RootRing::of_text(&text),
    };
    ring.map(Some).ok_or(KeyFileError::Malformed)
}

/// Makes the file with a fresh key. One that is there stays as it is.
pub(crate) fn create(path: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let root = Material::random(entropy);
    let temporary = write_beside(path, &[&root], entropy)?;
    // A link, not a rename: it never replaces a key that another process made first.
    let linked = match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    let removed = fs::remove_file(&temporary);
    linked?;
    removed?;
    // The name must survive a power loss before anything is sealed under the key.
    sync_directory(path)
}

/// Changes which keys are in the file, durably. One process at a time does so.
pub(crate) fn update(
    path: &Path,
    entropy: &dyn Entropy,
    change: impl FnOnce(RootRing) -> Result<RootRing, KeyFileError>,
) -> Result<(), KeyFileError> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(name_beside(path, "lock").map_err(KeyFileError::Io)?)
        .map_err(KeyFileError::Io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| KeyFileError::Io(error.into()))?;
    let ring = read(path, Readers::Owner)?.ok_or(KeyFileError::Gone)?;
    let ring = change(ring)?;
    let roots: Vec<&Material> = ring.iter().map(|root| root.material()).collect();
    replace(path, &roots, entropy)
        .and_then(|()| remove_leftovers(path))
        .map_err(KeyFileError::Io)
}

/// Removes what crashes left beside the file: there may be keys in it that were retired since.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begin = format!(".{name}.");
    for entry in fs::read_dir(directory_of(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&begin) && name.ends_with(".tmp") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Puts these keys into the file's place, durably.
pub(crate) fn replace(path: &Path, roots: &[&Material], entropy: &dyn Entropy) -> io::Result<()> {
    let temporary = write_beside(path, roots, entropy)?;
    if let Err(error) = fs::rename(&temporary, path) {
        // Best effort: the error matters more.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(path)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name_beside(path: &Path, end: &str) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{end}"));
    Ok(directory_of(path).join(beside))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Writes keys into a new file beside `path`, durably.
fn write_beside(path: &Path, roots: &[&Material], entropy: &dyn Entropy) -> io::Result<PathBuf> {
    let mut tag = [0; 8];
    entropy.fill(&mut tag);
    let temporary = name_beside(path, &format!("{}.tmp", hex::encode(tag)))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = (|| {
        for root in roots {
            file.write_all(line_of(root).as_bytes())?;
        }
        // The content before the name: a name that survives a crash has its keys behind it.
        file.sync_all()
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(temporary)
}
