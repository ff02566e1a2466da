//! Partition tables: the MBR, and the GUID Partition Table (UEFI 2.10, chapter 5) behind a protective one.

use super::fields::{CRC32, Fields, SECTOR, is_zero};
use super::rules::{Begun, End, Next, Piece, Rules};
use super::{Result, refused, truncated};

const FIRST_ENTRY: usize = 446;
const PROTECTIVE: u8 = 0xee;
const SIGNATURE: &[u8] = b"EFI PART";

/// A partition of an MBR.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u8,
    start: u32,
    sectors: u32,
}

#[derive(Debug)]
struct Gpt {
    /// Where the last partition ends.
    end: u64,
    /// The header at the disk's beginning; none where there is an MBR only.
    header: Option<Header>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    own: u64,
    other: u64,
    usable: (u64, u64),
    disk: [u8; 16],
    count: u32,
    entry: u32,
    sum: u32,
}

/// Whether the first sector ends as one with a partition table does, and is not that of a FAT file system, which does too.
pub(super) fn is_there(head: &[u8]) -> bool {
    let is_fat = head.get(0x10) == Some(&2) && head.get(0x15) == Some(&0xf8);
    head.get(510..512) == Some(&[0x55, 0xaa]) && !is_fat
}

/// Whether a reader would find partitions in it.
pub(super) fn is_table(head: &[u8]) -> bool {
    is_there(head) && partitions(head).is_ok()
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let partitions = partitions(head)?;
    let is_protective = |entry: &Entry| entry.kind == PROTECTIVE;
    if !partitions.iter().any(is_protective) {
        let ends = partitions
            .iter()
            .map(|entry| (u64::from(entry.start) + u64::from(entry.sectors)) * SECTOR);
        let rules = Gpt {
            end: ends.max().unwrap_or(0),
            header: None,
        };
        return Ok((Box::new(rules), Next::Enough));
    }
    // The table begins in the second sector, of either size.
    let sector = [SECTOR, 4096]
        .into_iter()
        .find(|sector| at(head, *sector).is_some_and(|bytes| bytes.starts_with(SIGNATURE)));
    let sector = sector.ok_or_else(|| refused("The disk's GPT is not there."))?;
    let (header, entries) = header(at(head, sector).unwrap_or_default())?;
    if header.own != 1 {
        return Err(damaged());
    }
    let last = check_entries(head, &header, entries, sector)?;
    let backup = header.other.checked_mul(sector).ok_or_else(damaged)?;
    let rules = Gpt {
        end: last.saturating_add(1).saturating_mul(sector),
        header: Some(header),
    };
    let piece = Piece {
        at: backup,
        length: SECTOR as usize,
    };
    Ok((Box::new(rules), Next::Piece(piece)))
}

/// The partitions of the MBR. The rules are those of the OpenStack services.
fn partitions(head: &[u8]) -> Result<Vec<Entry>> {
    let table = Fields::of(head, "gpt");
    let mut found = Vec::new();
    let mut protective = None;
    for number in 0..4 {
        let entry = table.slice(FIRST_ENTRY + number * 16, 16)?;
        let fields = Fields::of(entry, "gpt");
        let partition = Entry {
            kind: entry[4],
            start: fields.le32(8)?,
            sectors: fields.le32(12)?,
        };
        if !matches!(entry[0], 0 | 0x80) {
            return Err(refused("A partition of the disk has an invalid boot flag."));
        }
        if partition.kind == PROTECTIVE {
            if entry[1..4] != [0, 2, 0] || partition.start != 1 {
                return Err(refused("The disk's GPT is protected wrongly."));
            }
            protective = Some(number);
        }
        if partition.kind != 0 {
            found.push(partition);
        }
    }
    match protective {
        Some(0) if found.len() == 1 => Ok(found),
        None if !found.is_empty() => Ok(found),
        None => Err(refused("The disk has no partitions.")),
        Some(_) => Err(refused("The disk has partitions beside its GPT.")),
    }
}

/// A header and where its entries are, once its checksum is right.
fn header(bytes: &[u8]) -> Result<(Header, u64)> {
    let fields = Fields::of(bytes, "gpt");
    let length = fields.le32(12)? as usize;
    if !(92..=SECTOR as usize).contains(&length) || !bytes.starts_with(SIGNATURE) {
        return Err(damaged());
    }
    let header = fields.slice(0, length)?;
    let mut digest = CRC32.digest();
    digest.update(&header[..16]);
    digest.update(&[0; 4]);
    digest.update(&header[20..]);
    if digest.finalize() != fields.le32(16)? {
        return Err(damaged());
    }
    let header = Header {
        own: fields.le64(24)?,
        other: fields.le64(32)?,
        usable: (fields.le64(40)?, fields.le64(48)?),
        disk: fields.slice(56, 16)?.try_into().unwrap_or_default(),
        count: fields.le32(80)?,
        entry: fields.le32(84)?,
        sum: fields.le32(88)?,
    };
    Ok((header, fields.le64(72)?))
}

/// Checks the entries of the table at the beginning, and gives the last sector that one has.
fn check_entries(head: &[u8], header: &Header, start: u64, sector: u64) -> Result<u64> {
    let length = u64::from(header.count) * u64::from(header.entry);
    let entries = start.checked_mul(sector).and_then(|start| at(head, start));
    let entries = entries.zip(usize::try_from(length).ok());
    let entries = entries.and_then(|(bytes, length)| bytes.get(..length));
    let entries = entries.ok_or_else(|| refused("The disk's GPT is larger than any."))?;
    let size_is_valid = header.entry >= 128 && header.entry.is_power_of_two();
    if start < 2 || !size_is_valid || CRC32.checksum(entries) != header.sum {
        return Err(damaged());
    }
    let mut extents = Vec::new();
    for entry in entries.chunks_exact(header.entry as usize) {
        if !is_zero(&entry[..16]) {
            let fields = Fields::of(entry, "gpt");
            extents.push((fields.le64(32)?, fields.le64(40)?));
        }
    }
    extents.sort_unstable();
    let apart = extents.windows(2).all(|pair| pair[0].1 < pair[1].0);
    let (first, last) = header.usable;
    let inside =
        |extent: &(u64, u64)| first <= extent.0 && extent.0 <= extent.1 && extent.1 <= last;
    if !apart || !extents.iter().all(inside) {
        return Err(refused(
            "Partitions of the disk overlap, or lie outside it.",
        ));
    }
    Ok(extents.last().map_or(0, |extent| extent.1))
}

impl Rules for Gpt {
    /// The header at the disk's end says what the one at its beginning does.
    fn examine(&mut self, piece: &[u8]) -> Result<Next> {
        let (other, _) = header(piece)?;
        let turned = Header {
            own: other.other,
            other: other.own,
            ..other
        };
        match self.header == Some(turned) {
            true => Ok(Next::Enough),
            false => Err(refused("The disk's two GPTs are not the same.")),
        }
    }

    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        match self.end > end.length {
            true => Err(truncated("gpt")),
            false => Ok(Some(end.length)),
        }
    }
}

fn at(head: &[u8], at: u64) -> Option<&[u8]> {
    head.get(usize::try_from(at).ok()?..)
}

fn damaged() -> crate::error::Error {
    refused("The disk's GPT is damaged.")
}
