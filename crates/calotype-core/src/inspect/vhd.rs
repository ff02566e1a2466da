//! Microsoft's Virtual Hard Disk Image Format Specification, 1.0.
//!
//! A fixed disk is its bytes with a footer behind them; a dynamic one has a copy of the footer in front, a header and a table of
//! blocks. A differencing one refers to its parent, and is refused.

use super::fields::{Fields, SECTOR, entries, is_zero};
use super::rules::{Begun, End, Next, Places, Rules, Table};
use super::{Result, bomb, disk_size, foreign, refused, truncated};

const MAGIC: &[u8] = b"conectix";
pub(super) const FOOTER: usize = 512;
const HEADER: usize = 1024;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
const NOWHERE: u32 = u32::MAX;

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footer {
    kind: u32,
    size: u64,
    header: u64,
    id: [u8; 16],
}

#[derive(Debug)]
struct Dynamic {
    footer: Footer,
    block: u64,
    table: Table,
    end_of_table: u64,
    blocks: Places,
}

/// Whether bytes begin as a footer does.
pub(super) fn is_footer(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Whether it is the footer of a disk that needs another one.
pub(super) fn has_parent(bytes: &[u8]) -> bool {
    is_footer(bytes) && Fields::of(bytes, "vhd").be32(60).ok() == Some(DIFFERENCING)
}

/// Whether what begins with a footer names a parent there or in the header of a dynamic disk.
pub(super) fn names_parent(head: &[u8]) -> bool {
    let at = Fields::of(head, "vhd").be64(16).ok();
    let at = at.and_then(|at| usize::try_from(at).ok());
    let header = at.and_then(|at| head.get(at..)?.get(..HEADER));
    has_parent(head) || header.is_some_and(header_names_parent)
}

/// Whether the parent's id, name or locators are there.
fn header_names_parent(header: &[u8]) -> bool {
    header.starts_with(b"cxsparse") && !(is_zero(&header[40..56]) && is_zero(&header[64..768]))
}

/// The size of the fixed disk that ends with this footer, of `length` bytes with it.
pub(super) fn fixed(footer: &[u8], length: u64) -> Result<u64> {
    let footer = read_footer(footer)?;
    match footer.kind {
        FIXED if footer.size <= length - FOOTER as u64 => disk_size(footer.size),
        FIXED => Err(truncated("vhd")),
        _ => Err(refused("The vhd image has lost its beginning.")),
    }
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let fields = Fields::of(head, "vhd");
    let footer = read_footer(fields.slice(0, FOOTER)?)?;
    if footer.kind != DYNAMIC {
        return Err(refused(
            "The vhd image begins with the footer of another kind.",
        ));
    }
    disk_size(footer.size)?;
    let header = usize::try_from(footer.header).unwrap_or(usize::MAX);
    let header = fields.slice(header, HEADER)?;
    let sum_is_right = sum(header, 36) == Fields::of(header, "vhd").be32(36)?;
    if !header.starts_with(b"cxsparse") || !sum_is_right {
        return Err(refused("The header of the vhd image is damaged."));
    }
    if header_names_parent(header) {
        return Err(foreign("a parent disk"));
    }
    let header = Fields::of(header, "vhd");
    let (at, count) = (header.be64(16)?, u64::from(header.be32(28)?));
    let block = u64::from(header.be32(32)?);
    if !block.is_power_of_two() || !(SECTOR..=256 << 20).contains(&block) {
        return Err(refused("The vhd image's blocks have no valid size."));
    }
    let length = count * 4;
    if count * block < footer.size || at < FOOTER as u64 || at.checked_add(length).is_none() {
        return Err(refused(
            "The vhd image's table does not have its disk's size.",
        ));
    }
    let mut table = Table::new(at, length);
    let end_of_table = table.end();
    let next = table.next().map_or(Next::Enough, Next::Piece);
    let rules = Dynamic {
        footer,
        block,
        table,
        end_of_table,
        blocks: Places::default(),
    };
    Ok((Box::new(rules), next))
}

impl Rules for Dynamic {
    fn examine(&mut self, piece: &[u8]) -> Result<Next> {
        for entry in entries(piece).map(u32::from_be_bytes) {
            if entry != NOWHERE {
                self.blocks.add(u64::from(entry) * SECTOR);
            }
        }
        Ok(self.table.next().map_or(Next::Enough, Next::Piece))
    }

    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        let last = end.last(FOOTER);
        if self.end_of_table > end.length || !is_footer(last) {
            return Err(truncated("vhd"));
        }
        if read_footer(last)? != self.footer {
            return Err(refused("The vhd image's two footers are not the same."));
        }
        // A block stands behind a map of its sectors, and the last one before the footer.
        let map = (self.block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        let least = map + self.block + FOOTER as u64;
        match self.blocks.end_before(end.length, least) {
            false => Err(truncated("vhd")),
            true if !self.blocks.fit(end.length, self.block) => Err(bomb("vhd")),
            true => Ok(Some(self.footer.size)),
        }
    }
}

fn read_footer(footer: &[u8]) -> Result<Footer> {
    if has_parent(footer) {
        return Err(foreign("a parent disk"));
    }
    let fields = Fields::of(footer, "vhd");
    if fields.be32(64)? != sum(fields.slice(0, FOOTER)?, 64) {
        return Err(refused("The footer of the vhd image is damaged."));
    }
    Ok(Footer {
        kind: fields.be32(60)?,
        size: fields.be64(48)?,
        header: fields.be64(16)?,
        id: fields.slice(68, 16)?.try_into().unwrap_or_default(),
    })
}

/// The complement of the sum of all bytes but the sum's own, which are at `at`.
fn sum(bytes: &[u8], at: usize) -> u32 {
    let all = bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let own = bytes.iter().skip(at).take(4).map(|byte| u32::from(*byte));
    !(all - own.sum::<u32>())
}
