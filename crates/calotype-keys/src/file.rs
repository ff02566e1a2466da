//! The file that holds the service's root key: one line of text, mode 0600.
//!
//! # Crash consistency
//! The file appears whole or not at all: it is written and synced under a temporary name, then linked to
//! its own name, which fails where the name is taken. So of two processes that start at once on an empty
//! directory, both use the key of the one that linked first. A crash in between leaves a temporary file
//! (`.NAME.HEX.tmp`) with a key that nothing was ever sealed under.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use calotype_core::ports::Entropy;
use calotype_core::{Error, Result};
use zeroize::Zeroizing;

const PREFIX: &str = "calotype-service-key-1:";
const HEX: usize = 64;

/// Why a key file is refused. The text names the file's fault, never its content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("the service key file can't be read or written")]
    Io(#[source] io::Error),
    #[error("the service key file is not a regular file")]
    NotAFile,
    #[error("the service key file may be read by others than its owner (mode {0:04o}): want 0600")]
    Exposed(u32),
    #[error("the service key file does not hold a service key")]
    Malformed,
}

impl From<KeyFileError> for Error {
    fn from(error: KeyFileError) -> Self {
        Self::internal(error)
    }
}

/// Reads 64 hexadecimal digits, in either case, with white space around them.
pub(crate) fn parse_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut root = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), root.as_mut_slice()).ok()?;
    Some(root)
}

/// The root key in the file at `path`, which is made with a fresh key where there is none.
pub(crate) fn open_or_create(path: &Path, entropy: &dyn Entropy) -> Result<Zeroizing<[u8; 32]>> {
    match read(path) {
        Err(KeyFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
        other => return Ok(other?),
    }
    create(path, entropy).map_err(KeyFileError::Io)?;
    Ok(read(path)?)
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    // Nonblocking, so that a FIFO in the key's place is refused rather than waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(KeyFileError::Io)?;
    // Of the open file, not of the path: what is checked is what is read.
    let metadata = file.metadata().map_err(KeyFileError::Io)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed(mode));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(PREFIX.len() + HEX + 2));
    let limit = (PREFIX.len() + HEX + 1) as u64;
    // One byte more than a key file has, to notice one that is too long.
    file.take(limit + 1)
        .read_to_end(&mut text)
        .map_err(KeyFileError::Io)?;
    let digits = text
        .strip_prefix(PREFIX.as_bytes())
        .and_then(|rest| rest.strip_suffix(b"\n"))
        .filter(|digits| digits.len() == HEX)
        .ok_or(KeyFileError::Malformed)?;
    let mut root = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, root.as_mut_slice()).map_err(|_| KeyFileError::Malformed)?;
    Ok(root)
}

fn create(path: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = temporary_name(path, directory, entropy)?;
    let written = write_new(&temporary, entropy).and_then(|()| {
        // A link, not a rename: it never replaces a key that another process made first.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    let removed = fs::remove_file(&temporary);
    written?;
    removed?;
    // The name must survive a power loss before anything is sealed under the key.
    File::open(directory)?.sync_all()
}

fn temporary_name(path: &Path, directory: &Path, entropy: &dyn Entropy) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut tag = [0; 8];
    entropy.fill(&mut tag);
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", hex::encode(tag)));
    Ok(directory.join(temporary))
}

fn write_new(path: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let mut root = Zeroizing::new([0; 32]);
    entropy.fill(root.as_mut_slice());
    let mut line = Zeroizing::new([0; PREFIX.len() + HEX + 1]);
    line[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
    hex::encode_to_slice(root.as_slice(), &mut line[PREFIX.len()..PREFIX.len() + HEX])
        .map_err(io::Error::other)?;
    line[PREFIX.len() + HEX] = b'\n';
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(line.as_slice())?;
    // The content before the name: a name that survives a crash has its key behind it.
    file.sync_all()
}
