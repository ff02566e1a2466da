//! VirtualBox' `VDICore.h`, version 1.1.

use super::fields::{Fields, SECTOR, entries, is_zero};
use super::rules::{Begun, End, Next, Rules, Table};
use super::{Result, bomb, disk_size, foreign, refused, truncated};

pub(super) const MAGIC: u32 = 0xbeda_107f;
const NORMAL: u32 = 1;
const FIXED: u32 = 2;
/// Entries of blocks that have no bytes: never written, and zeros.
const NO_BYTES: u32 = 0xffff_fffe;

#[derive(Debug)]
struct Vdi {
    size: u64,
    /// How many blocks have bytes, and how many are said to.
    allocated: u64,
    found: u64,
    /// Where the last block with bytes ends.
    end: u64,
    map: Table,
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let header = Fields::of(head, "vdi");
    if header.le32(0x44)? >> 16 != 1 {
        return Err(refused("Only version 1 of VDI is accepted."));
    }
    // The ids of the image that it was linked to, and of its parent.
    let parents = header.slice(0x1a8, 32)?;
    if !matches!(header.le32(0x4c)?, NORMAL | FIXED) || !is_zero(parents) {
        return Err(foreign("a parent disk"));
    }
    let size = disk_size(header.le64(0x170)?)?;
    let block = u64::from(header.le32(0x178)?);
    if u64::from(header.le32(0x168)?) != SECTOR
        || !block.is_power_of_two()
        || !(SECTOR..=256 << 20).contains(&block)
    {
        return Err(refused("The vdi image's blocks have no valid size."));
    }
    let (map, data) = (
        u64::from(header.le32(0x154)?),
        u64::from(header.le32(0x158)?),
    );
    let (count, allocated) = (
        u64::from(header.le32(0x180)?),
        u64::from(header.le32(0x184)?),
    );
    if allocated > count || count * block < size || map < 0x180 || map + count * 4 > data {
        return Err(refused(
            "The vdi image's map does not have its disk's size.",
        ));
    }
    let mut map = Table::new(map, count * 4);
    let next = map.next().map_or(Next::Enough, Next::Piece);
    let rules = Vdi {
        size,
        allocated,
        found: 0,
        end: data + allocated * block,
        map,
    };
    Ok((Box::new(rules), next))
}

impl Rules for Vdi {
    fn examine(&mut self, piece: &[u8]) -> Result<Next> {
        for entry in entries(piece).map(u32::from_le_bytes) {
            if entry >= NO_BYTES {
                continue;
            }
            if u64::from(entry) >= self.allocated {
                return Err(truncated("vdi"));
            }
            self.found += 1;
        }
        Ok(self.map.next().map_or(Next::Enough, Next::Piece))
    }

    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        if self.end > end.length {
            return Err(truncated("vdi"));
        }
        match self.found > self.allocated {
            true => Err(bomb("vdi")),
            false => Ok(Some(self.size)),
        }
    }
}
