//! What an image's bytes say of themselves: their format, and the size of the disk that they describe.
//!
//! The rules are those of oslo.utils' format inspector, with which the OpenStack services guard themselves, and
//! many more: `docs/inspection.md` lists them. Bytes that refer to other files (a backing file, an external data file, an extent
//! by path, a parent) are refused whatever format they were declared as: a tool that opened them would read files of its host
//! (OSSA-2024-001, OSSA-2024-002). So are bytes in another format than the declared one or in several at once, bytes
//! that end before what their header promises, and tables that describe more data than there is.
//!
//! Each format's rules see the first 64 KiB, and then the pieces that they ask for: tables, in the
//! order of the stream. What lies before its turn has passed, and can't be looked at. How the stream is cut changes nothing.
//!
//! Not inspected: what is inside of containers other than `bare` and `ova`, beyond that it is no disk of another format; the
//! formats that have no public description (`zvhd`, `zvhd2`) or no magic (`ami`, `aki`, `ari`), likewise; the contents of a disk.
//! Nothing here opens an image, and no number in it is trusted for more than being shown.
//!
//! Memory: at most 2 MiB, whatever the image's size, and mostly no more than 200 KiB. A crash leaves nothing.

mod detect;
mod disk;
mod fields;
mod gpt;
mod iso;
mod luks;
mod ova;
mod ploop;
mod qcow2;
mod rules;
mod vdi;
mod verified;
mod vhd;
mod vhdx;
mod vmdk;

pub use verified::Verified;

use crate::error::{Error, ErrorKind, Result};
use crate::size::ByteSize;

pub(crate) use self::fields::is_zero;
pub(crate) use self::ova::read_header as read_tar_header;

/// No disk is larger.
pub(crate) const MOST_DISK: ByteSize = ByteSize::gib(64 * 1024);

/// Looks at an image's bytes as they pass.
#[derive(Debug)]
pub struct Inspector(Kind);

#[derive(Debug)]
enum Kind {
    Disk(disk::Disk),
    Archive(ova::Archive),
}

/// What an inspection took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that were held at most at one time.
    pub memory: usize,
    /// Bytes that were looked at, each by one comparison or a few.
    pub examined: u64,
}

impl Inspector {
    /// An inspector of bytes that were declared as `disk_format`, in a `container_format`.
    pub fn new(disk_format: impl Into<String>, container_format: &str) -> Self {
        let declared = disk_format.into();
        Self(match container_format {
            "bare" | "ami" | "ari" | "aki" => Kind::Disk(disk::Disk::new(declared)),
            "ova" => Kind::Archive(ova::Archive::default()),
            _ => Kind::Disk(disk::Disk::in_a_container(declared)),
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As of [`Self::finish`], as soon as it can be known.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.0 {
            Kind::Disk(disk) => disk.feed(bytes),
            Kind::Archive(archive) => archive.feed(bytes),
        }
    }

    /// The size of the disk that all the bytes describe; none where it can't be known.
    ///
    /// # Errors
    /// UnsupportedMediaType where the bytes refer to other files, break their format's rules, end too early, or are in another
    /// format than the declared one.
    pub fn finish(&mut self) -> Result<Option<ByteSize>> {
        let size = match &mut self.0 {
            Kind::Disk(disk) => disk.finish()?,
            Kind::Archive(archive) => {
                archive.finish()?;
                None
            }
        };
        // The catalog counts in signed 64 bits; what is larger is no size of a disk.
        let size = size.filter(|size| i64::try_from(*size).is_ok());
        Ok(size.map(ByteSize::new))
    }

    /// What it took so far.
    pub fn cost(&self) -> Cost {
        match &self.0 {
            Kind::Disk(disk) => disk.cost(),
            Kind::Archive(archive) => archive.cost(),
        }
    }
}

/// The size of a disk, where it can be one.
fn disk_size(bytes: u64) -> Result<u64> {
    if bytes <= MOST_DISK.bytes() {
        return Ok(bytes);
    }
    Err(refused(format!(
        "The image describes a disk of {}: none is larger than {MOST_DISK}.",
        ByteSize::new(bytes)
    )))
}

fn foreign(what: &str) -> Error {
    refused(format!("The image refers to {what}."))
}

fn truncated(format: &str) -> Error {
    refused(format!(
        "The {format} image ends before what its header promises."
    ))
}

fn bomb(format: &str) -> Error {
    refused(format!(
        "The {format} image describes more data than it has."
    ))
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedMediaType, message)
}
