//! What an image's bytes say of themselves: their format, and the size of the disk that they describe.
//!
//! The rules are those of oslo.utils' format inspector, with which the OpenStack services guard themselves, and
//! some more. Bytes that refer to other files (a backing file, an external data file, an extent by path, a parent)
//! are refused whatever format they were declared as: a tool that opened them would read files of its host
//! (OSSA-2024-001, OSSA-2024-002). So are bytes that are in a format other than the declared one.
//!
//! Not inspected: containers other than `bare`, whose disks lie inside; the formats that have no public
//! description (`zvhd`, `zvhd2`) or no magic (`ami`, `aki`, `ari`, `ploop`), beyond the above; VHDX beyond its
//! magic. Nothing here opens an image, and no number in it is trusted for more than being shown.
//!
//! Memory: the first [`HEAD`] bytes and the last [`TAIL`], whatever the image's size. A crash leaves nothing.

use crate::error::{Error, ErrorKind, Result};
use crate::size::ByteSize;

/// Bytes of the beginning that are kept: every header, the ISO's descriptor at 32 KiB, a VMDK's descriptor.
pub const HEAD: usize = 128 * 1024;
/// Bytes of the end that are kept: a fixed VHD's footer; a streamed VMDK's footer between its two markers.
pub const TAIL: usize = 3 * SECTOR;
const SECTOR: usize = 512;

/// Looks at an image's bytes as they pass.
#[derive(Debug)]
pub struct Inspector {
    declared: String,
    head: Vec<u8>,
    tail: Vec<u8>,
    length: u64,
    looked: bool,
}

/// What was found at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    format: &'static str,
    virtual_size: Option<u64>,
}

impl Inspector {
    /// An inspector of bytes that were declared as `disk_format`, in a `bare` container.
    pub fn new(disk_format: impl Into<String>) -> Self {
        Self {
            declared: disk_format.into(),
            head: Vec::new(),
            tail: Vec::new(),
            length: 0,
            looked: false,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As of [`Self::finish`], as soon as it can be known.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        let wanted = bytes.len().min(HEAD - self.head.len());
        self.head.extend_from_slice(&bytes[..wanted]);
        let last = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + last.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(last);
        if !self.looked && self.head.len() == HEAD {
            self.looked = true;
            self.at_the_beginning()?;
        }
        Ok(())
    }

    /// The size of the disk that all the bytes describe; none where it can't be known.
    ///
    /// # Errors
    /// UnsupportedMediaType where the bytes refer to other files, break their format's rules, or are in another
    /// format than the declared one.
    pub fn finish(&self) -> Result<Option<ByteSize>> {
        let found = self.at_the_beginning()?;
        let size = match (self.declared.as_str(), found) {
            // What a raw disk holds is its user's affair: it is as large as its bytes are.
            ("raw" | "gpt", _) => Some(self.length),
            ("vhd", None) => Some(vhd(self.last(SECTOR)).ok_or_else(|| self.mismatch("raw"))??),
            ("vmdk", Some(found)) => {
                vmdk_footer(&self.head, self.last(2 * SECTOR))?;
                found.virtual_size
            }
            ("luks", Some(_)) => be32(&self.head, 104)
                .and_then(|sectors| self.length.checked_sub(u64::from(sectors) * SECTOR as u64)),
            (declared, Some(found)) if declared == found.format => found.virtual_size,
            _ => None,
        };
        // The catalog counts in signed 64 bits; what is larger is no size of a disk.
        let size = size.filter(|size| i64::try_from(*size).is_ok());
        Ok(size.map(ByteSize::new))
    }

    /// What can be said from the beginning alone, with every refusal that follows from it.
    fn at_the_beginning(&self) -> Result<Option<Found>> {
        let found = look(&self.head)?;
        match (self.declared.as_str(), found) {
            ("raw" | "ami" | "ari" | "aki" | "ploop" | "qcow" | "zvhd" | "zvhd2", _) => Ok(found),
            // Only its end tells a fixed VHD from a raw disk, see `finish`.
            ("vhd", None) => Ok(None),
            ("gpt", None) if self.head.get(510..512) == Some(&[0x55, 0xaa]) => Ok(None),
            (declared, Some(found)) if declared == found.format => Ok(Some(found)),
            (_, found) => Err(self.mismatch(found.map_or("raw", |found| found.format))),
        }
    }

    /// The last `length` bytes, none where there are fewer.
    fn last(&self, length: usize) -> &[u8] {
        let from = self.tail.len().checked_sub(length);
        from.and_then(|from| self.tail.get(from..))
            .unwrap_or_default()
    }

    fn mismatch(&self, found: &str) -> Error {
        refused(format!(
            "Image content ({found}) does not match its disk_format ({}).",
            self.declared
        ))
    }
}

/// The one format whose magic the bytes begin with, and what it says. Two are one too many: an ISO that is also
/// something else is what an attacker makes.
fn look(head: &[u8]) -> Result<Option<Found>> {
    let mut found = Vec::new();
    let mut push = |format, virtual_size| {
        found.push(Found {
            format,
            virtual_size,
        });
    };
    if head.starts_with(b"QFI\xfb") {
        push("qcow2", Some(qcow2(head)?));
    }
    if head.starts_with(b"QED\0") {
        return Err(refused("QED images are not accepted."));
    }
    if let Some(size) = vhd(head) {
        push("vhd", Some(size?));
    }
    if head.starts_with(b"vhdxfile") {
        push("vhdx", None);
    }
    if head.starts_with(b"KDMV") {
        push("vmdk", Some(vmdk(head)?));
    }
    if head
        .trim_ascii_start()
        .starts_with(b"# Disk DescriptorFile")
    {
        return Err(foreign("a VMDK descriptor without its extents"));
    }
    if le32(head, 0x40) == Some(0xbeda_107f) {
        push("vdi", Some(vdi(head)?));
    }
    if head.starts_with(b"LUKS\xba\xbe") {
        if head.get(6..8) != Some(&[0, 1]) {
            return Err(refused("Only version 1 of LUKS is accepted."));
        }
        push("luks", None);
    }
    if let Some(b"CD001" | b"NSR02" | b"NSR03") = head.get(0x8001..0x8006) {
        push("iso", iso(head));
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(refused("The image is in several formats at once.")),
    }
}

/// QEMU's `docs/interop/qcow2.rst`.
fn qcow2(head: &[u8]) -> Result<u64> {
    /// Dirty, corrupt, and another compression than deflate.
    const KNOWN: u64 = 1 | 1 << 1 | 1 << 3;
    const EXTERNAL_DATA: u64 = 1 << 2;
    let short = || refused("The header of the qcow2 image is not whole.");
    let version = be32(head, 4).ok_or_else(short)?;
    if be64(head, 8).ok_or_else(short)? != 0 {
        return Err(foreign("a backing file"));
    }
    let features = match version {
        2 => 0,
        3 => be64(head, 72).ok_or_else(short)?,
        _ => return Err(refused("Only versions 2 and 3 of qcow2 are accepted.")),
    };
    if features & EXTERNAL_DATA != 0 {
        return Err(foreign("an external data file"));
    }
    if features & !KNOWN != 0 {
        return Err(refused("The qcow2 image needs unknown features."));
    }
    be64(head, 24).ok_or_else(short)
}

/// The footer of a VHD, of which a dynamic one has a copy at its beginning. None where there is none.
fn vhd(footer: &[u8]) -> Option<Result<u64>> {
    const DIFFERENCING: u32 = 4;
    if !footer.starts_with(b"conectix") {
        return None;
    }
    Some(match (be32(footer, 60), be64(footer, 48)) {
        (Some(DIFFERENCING), _) => Err(foreign("a parent disk")),
        (Some(_), Some(size)) => Ok(size),
        _ => Err(refused("The footer of the VHD image is not whole.")),
    })
}

/// VMware's Virtual Disk Format 5.0, hosted sparse extents.
fn vmdk(head: &[u8]) -> Result<u64> {
    let short = || refused("The header of the VMDK image is not whole.");
    if !matches!(le32(head, 4), Some(1..=3)) {
        return Err(refused("Only versions 1 to 3 of VMDK are accepted."));
    }
    let capacity = le64(head, 12).ok_or_else(short)?;
    let sectors = (le64(head, 28), le64(head, 36));
    let (Some(1), Some(length)) = sectors else {
        return Err(refused("The VMDK image has no descriptor of its own."));
    };
    let end = usize::try_from(length).ok().and_then(|length| {
        let length = length.checked_mul(SECTOR)?;
        length.checked_add(SECTOR)
    });
    let descriptor = end
        .and_then(|end| head.get(SECTOR..end))
        .ok_or_else(short)?;
    vmdk_descriptor(descriptor)?;
    capacity
        .checked_mul(SECTOR as u64)
        .ok_or_else(|| refused("The VMDK image's size is no size."))
}

/// Every line must be understood: what is not could name a file.
fn vmdk_descriptor(descriptor: &[u8]) -> Result<()> {
    let end = descriptor.iter().position(|byte| *byte == 0);
    let text = descriptor.get(..end.unwrap_or(descriptor.len()));
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let text = text.ok_or_else(|| refused("The VMDK image's descriptor is no text."))?;
    let (mut made_as, mut extents) = (false, 0);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if ["RW ", "RDONLY ", "NOACCESS "]
            .iter()
            .any(|access| line.starts_with(access))
        {
            let name = line.split('"').nth(1).unwrap_or_default();
            if line.split_whitespace().nth(2) != Some("SPARSE")
                || name.contains(['/', '\\'])
                || name.contains("..")
            {
                return Err(foreign("an extent outside the image"));
            }
            extents += 1;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(refused("The VMDK image's descriptor is not understood."));
        };
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "createType" if matches!(value, "monolithicSparse" | "streamOptimized") => {
                made_as = true;
            }
            "createType" => return Err(foreign("a VMDK disk of several files")),
            "parentCID" if value.eq_ignore_ascii_case("ffffffff") => {}
            "parentCID" | "parentFileNameHint" => return Err(foreign("a parent disk")),
            _ => {}
        }
    }
    if made_as && extents > 0 {
        return Ok(());
    }
    Err(refused("The VMDK image's descriptor is not whole."))
}

/// A streamed disk repeats its header at its end, and readers believe the second.
fn vmdk_footer(head: &[u8], end: &[u8]) -> Result<()> {
    const AT_THE_END: u64 = u64::MAX;
    if le64(head, 56) != Some(AT_THE_END) {
        return Ok(());
    }
    let same = |range: std::ops::Range<usize>| {
        let of_head = head.get(range.clone());
        of_head.is_some() && of_head == end.get(range)
    };
    // Magic and version; then capacity, grain size, and where the descriptor is.
    if same(0..8) && same(12..44) {
        return Ok(());
    }
    Err(refused(
        "The VMDK image's footer is not that of its header.",
    ))
}

/// VirtualBox' `VDICore.h`.
fn vdi(head: &[u8]) -> Result<u64> {
    const NORMAL: u32 = 1;
    const FIXED: u32 = 2;
    match le32(head, 0x4c) {
        Some(NORMAL | FIXED) => {}
        Some(_) => return Err(foreign("a parent disk")),
        None => return Err(refused("The header of the VDI image is not whole.")),
    }
    le64(head, 0x170).ok_or_else(|| refused("The header of the VDI image is not whole."))
}

/// ECMA-119, 8.4: blocks in the volume times the length of a block.
fn iso(head: &[u8]) -> Option<u64> {
    const DESCRIPTOR: usize = 0x8000;
    if head.get(DESCRIPTOR..DESCRIPTOR + 6)? != b"\x01CD001" {
        return None;
    }
    let blocks = le32(head, DESCRIPTOR + 80)?;
    let length = bytes::<2>(head, DESCRIPTOR + 128).map(u16::from_le_bytes)?;
    Some(u64::from(blocks) * u64::from(length))
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn be32(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_be_bytes)
}

fn be64(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_be_bytes)
}

fn le32(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_le_bytes)
}

fn le64(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_le_bytes)
}

fn foreign(what: &str) -> Error {
    refused(format!("The image refers to {what}."))
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedMediaType, message)
}

#[cfg(test)]
mod tests;
