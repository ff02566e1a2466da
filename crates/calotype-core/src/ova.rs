//! Archives of a server's disks (OVA; DMTF DSP0243): which disks there are, and where in the archive each lies.
//!
//! Only the headers and the description are read, each at its place. What the bytes of a disk are is looked at when they
//! are imported ([`crate::inspect`]): nothing in a header or the description is trusted for more than where to read.
//!
//! Memory: a header at a time, [`LONGEST_DESCRIPTION`] once, and the names of at most [`MOST_MEMBERS`] members.

mod description;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::inspect::{is_zero, read_tar_header};
use crate::size::ByteSize;

pub use self::description::{DescribedDisk, DescribedFile, Description, GuestSystem};

/// The most bytes of a description.
pub const LONGEST_DESCRIPTION: u64 = 1 << 20;
/// The most members of an archive that is imported: reading where each lies takes a request.
pub const MOST_MEMBERS: usize = 32;
/// The most disks of an archive: a server's system disk, and as many others as a request may name (spec 2.3).
pub const MOST_DISKS: usize = 4;

const BLOCK: u64 = 512;

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: no path.
    pub name: String,
    /// Where its bytes are in the archive.
    pub bytes: Range<u64>,
}

/// A disk in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveDisk {
    /// The name of its member.
    pub name: String,
    /// Where its bytes are in the archive.
    pub bytes: Range<u64>,
    /// How large it says that it is.
    pub capacity: ByteSize,
}

/// The members of an archive, as they are found from one header to the next.
#[derive(Debug)]
pub struct Directory {
    size: u64,
    at: u64,
    ended: bool,
    members: Vec<Member>,
    names: BTreeSet<String>,
}

impl Directory {
    /// Of an archive of this size, of which nothing was read yet.
    pub fn new(size: ByteSize) -> Self {
        Self {
            size: size.bytes(),
            at: 0,
            ended: false,
            members: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    /// The header that is to be read next; none once all were.
    ///
    /// # Errors
    /// IMG.0057 where the archive ends before its end is marked.
    pub fn next_header(&self) -> Result<Option<Range<u64>>> {
        if self.ended {
            return Ok(None);
        }
        let end = self.at.saturating_add(BLOCK);
        if end > self.size {
            return Err(refused("The archive ends too early."));
        }
        Ok(Some(self.at..end))
    }

    /// Takes that header.
    ///
    /// # Errors
    /// IMG.0057 for what is no plain member of this archive, a member too many, or one whose name another has.
    pub fn take(&mut self, header: &[u8]) -> Result<()> {
        if header.len() as u64 != BLOCK {
            return Err(refused("The archive ends too early."));
        }
        if is_zero(header) {
            self.ended = true;
            return Ok(());
        }
        let (name, length) = read_tar_header(header).map_err(|error| refused(error.message()))?;
        let begin = self.at.saturating_add(BLOCK);
        let end = begin.saturating_add(length);
        if end > self.size {
            return Err(refused("A member is longer than its archive."));
        }
        if self.members.len() == MOST_MEMBERS {
            return Err(refused(format!(
                "The archive has more than {MOST_MEMBERS} members."
            )));
        }
        if !self.names.insert(name.clone()) {
            return Err(refused("Two members of the archive have one name."));
        }
        let described = name.to_ascii_lowercase().ends_with(".ovf");
        if described != self.members.is_empty() {
            return Err(refused(
                "The archive's first member, and no other, must be its description (.ovf).",
            ));
        }
        self.members.push(Member {
            name,
            bytes: begin..end,
        });
        self.at = end.next_multiple_of(BLOCK);
        Ok(())
    }

    /// Where the description is.
    ///
    /// # Errors
    /// IMG.0057 where there is none, or none that is read.
    pub fn description(&self) -> Result<Range<u64>> {
        let first = self.members.first();
        let first = first.ok_or_else(|| refused("The archive is empty."))?;
        let length = first.bytes.end - first.bytes.start;
        if length == 0 || length > LONGEST_DESCRIPTION {
            return Err(refused(
                "The archive's description is empty, or longer than 1 MiB.",
            ));
        }
        Ok(first.bytes.clone())
    }

    /// The disks that the description names, the system's first.
    ///
    /// # Errors
    /// IMG.0194 where there are more than [`MOST_DISKS`]; IMG.0057 where there is none, where the description is of other files
    /// than there are, or where a file can't be taken as it is.
    pub fn disks(&self, description: &Description) -> Result<Vec<ArchiveDisk>> {
        for file in &description.files {
            let member = self.member(&file.href)?;
            let length = member.bytes.end - member.bytes.start;
            if file.size.is_some_and(|size| size != length) {
                return Err(refused(format!(
                    "The description gives {} another size than it has.",
                    file.href
                )));
            }
            if file.packed {
                return Err(refused(
                    "A file of the archive is compressed, or in several parts.",
                ));
            }
        }
        if description.disks.len() > MOST_DISKS {
            return Err(Error::ims(ImsCode::IMG_0194));
        }
        let mut disks: Vec<ArchiveDisk> = Vec::with_capacity(description.disks.len());
        for disk in &description.disks {
            let member = self.member(&disk.href)?;
            if member.bytes.is_empty() || disks.iter().any(|other| other.name == member.name) {
                return Err(refused("A disk is empty, or is that of another one too."));
            }
            disks.push(ArchiveDisk {
                name: member.name.clone(),
                bytes: member.bytes.clone(),
                capacity: disk.capacity,
            });
        }
        match disks.is_empty() {
            false => Ok(disks),
            true => Err(refused("The archive's description names no disk.")),
        }
    }

    /// A member other than the description.
    fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.iter().skip(1);
        let mut found = found.filter(|member| member.name == name);
        found
            .next()
            .ok_or_else(|| refused("The description names a file that is not in the archive."))
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::invalid(message).with_code(ImsCode::IMG_0057)
}
