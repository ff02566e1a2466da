//! Microsoft's VHDX Format Specification (MS-VHDX).
//!
//! What its two headers, its two region tables and its metadata say is looked at, each with its checksum. A disk with a parent
//! is refused, and one with a log that was not replayed: the log could change all that was looked at.

use super::fields::{CRC32C, Fields, entries};
use super::rules::{Begun, End, Next, PIECE, Piece, Places, Rules, Table};
use super::{Result, bomb, disk_size, foreign, refused, truncated};

pub(super) const MAGIC: &[u8] = b"vhdxfile";
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Two headers and two region tables, each in its 64 KiB.
const HEADERS: Piece = Piece {
    at: 64 * KIB,
    length: 4 * 64 * 1024,
};
const HEADER: usize = 4096;
const MOST_ENTRIES: usize = 2047;
/// Behind the metadata's table; the known items are a few bytes each.
const ITEMS: usize = 64 * 1024;

const BLOCKS: u128 = 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08;
const METADATA: u128 = 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e;
const PARAMETERS: u128 = 0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b;
const SIZE: u128 = 0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8;
const LOGICAL_SECTOR: u128 = 0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f;
const PHYSICAL_SECTOR: u128 = 0xcda3_48c7_445d_4471_9cc9_e988_5251_c556;
const DISK_ID: u128 = 0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746;
const PARENT: u128 = 0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c;

#[derive(Debug, Default)]
struct Vhdx {
    stage: Stage,
    blocks: Region,
    metadata: Region,
    found: Found,
    table: Option<Table>,
    places: Places,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Stage {
    #[default]
    Headers,
    Metadata,
    Blocks,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Region {
    at: u64,
    length: u64,
}

/// What the metadata says.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    size: u64,
    block: u64,
    sector: u64,
}

pub(super) fn begin(_head: &[u8]) -> Result<Begun> {
    Ok((Box::new(Vhdx::default()), Next::Piece(HEADERS)))
}

impl Vhdx {
    fn headers(&mut self, piece: &[u8]) -> Result<()> {
        let fields = Fields::of(piece, "vhdx");
        let headers = [fields.slice(0, HEADER)?, fields.slice(PIECE, HEADER)?];
        let valid = |header: &&[u8]| is_valid(header, b"head");
        let newest = headers
            .into_iter()
            .filter(valid)
            .max_by_key(|header| Fields::of(header, "vhdx").le64(8).unwrap_or(0));
        let newest = newest.ok_or_else(|| refused("The headers of the vhdx image are damaged."))?;
        let header = Fields::of(newest, "vhdx");
        if header.le16(66)? != 1 {
            return Err(refused("Only version 1 of VHDX is accepted."));
        }
        if id(header, 48)? != 0 {
            return Err(refused(
                "The vhdx image was not closed: its log has still to be replayed.",
            ));
        }
        let tables = [
            fields.slice(2 * PIECE, PIECE)?,
            fields.slice(3 * PIECE, PIECE)?,
        ];
        let damaged = || refused("The region tables of the vhdx image are damaged.");
        // Readers believe the first one; a second one is as good as the first, or is none.
        if !is_valid(tables[0], b"regi") {
            return Err(damaged());
        }
        (self.blocks, self.metadata) = regions(tables[0])?;
        let second = is_valid(tables[1], b"regi");
        if second && regions(tables[1])? != (self.blocks, self.metadata) {
            return Err(damaged());
        }
        Ok(())
    }

    /// The pieces of the two regions, in the order in which they come.
    fn next(&mut self) -> Next {
        if let Some(piece) = self.table.as_mut().and_then(Table::next) {
            return Next::Piece(piece);
        }
        let metadata = Piece {
            at: self.metadata.at,
            length: PIECE + ITEMS,
        };
        let blocks_first = self.blocks.at < self.metadata.at;
        let stage = match (self.stage, blocks_first) {
            (Stage::Headers, true) | (Stage::Metadata, false) => Stage::Blocks,
            (Stage::Headers, false) | (Stage::Blocks, true) => Stage::Metadata,
            _ => return Next::Enough,
        };
        self.stage = stage;
        if stage == Stage::Metadata {
            return Next::Piece(metadata);
        }
        let mut table = Table::new(self.blocks.at, self.blocks.length);
        let next = table.next().map_or(Next::Enough, Next::Piece);
        self.table = Some(table);
        next
    }

    fn metadata(&mut self, piece: &[u8]) -> Result<()> {
        let fields = Fields::of(piece, "vhdx");
        let count = usize::from(fields.le16(10)?);
        if fields.slice(0, 8)? != b"metadata" || count > MOST_ENTRIES {
            return Err(damaged_metadata());
        }
        let (mut parameters, mut size, mut sector) = (None, None, None);
        for entry in 0..count {
            const REQUIRED: u32 = 1 << 2;
            let entry = fields.from(32 + entry * 32)?;
            let at = usize::try_from(entry.le32(16)?).unwrap_or(usize::MAX);
            let item = || Fields::of(piece, "vhdx").from(at.max(PIECE));
            let once = match id(entry, 0)? {
                PARAMETERS => parameters.replace(item()?.le64(0)?).is_none(),
                SIZE => size.replace(item()?.le64(0)?).is_none(),
                LOGICAL_SECTOR => sector.replace(item()?.le32(0)?).is_none(),
                PHYSICAL_SECTOR | DISK_ID => true,
                PARENT => return Err(foreign("a parent disk")),
                _ if entry.le32(24)? & REQUIRED != 0 => {
                    return Err(refused("The vhdx image needs unknown metadata."));
                }
                _ => true,
            };
            if !once {
                return Err(damaged_metadata());
            }
        }
        let (Some(parameters), Some(size), Some(sector)) = (parameters, size, sector) else {
            return Err(damaged_metadata());
        };
        const HAS_PARENT: u64 = 1 << 33;
        if parameters & HAS_PARENT != 0 {
            return Err(foreign("a parent disk"));
        }
        self.found = Found {
            size: disk_size(size)?,
            block: parameters & u64::from(u32::MAX),
            sector: u64::from(sector),
        };
        let block_is_valid =
            self.found.block.is_power_of_two() && (MIB..=256 * MIB).contains(&self.found.block);
        if !block_is_valid
            || !matches!(self.found.sector, 512 | 4096)
            || size % self.found.sector != 0
        {
            return Err(damaged_metadata());
        }
        Ok(())
    }

    fn blocks(&mut self, piece: &[u8]) -> Result<()> {
        const STATE: u64 = 7;
        const PRESENT: u64 = 6;
        const PARTLY_PRESENT: u64 = 7;
        for entry in entries(piece).map(u64::from_le_bytes) {
            match entry & STATE {
                PRESENT => self.places.add(entry & !(MIB - 1)),
                PARTLY_PRESENT => return Err(foreign("a parent disk")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Entries that the table of blocks must have at least: one for each block, and one for each group of them.
    fn entries(&self) -> u64 {
        let Found {
            size,
            block,
            sector,
        } = self.found;
        let group = (sector << 23).checked_div(block).unwrap_or(1).max(1);
        let blocks = size.div_ceil(block.max(1));
        blocks + blocks.saturating_sub(1) / group
    }
}

impl Rules for Vhdx {
    fn examine(&mut self, piece: &[u8]) -> Result<Next> {
        match self.stage {
            Stage::Headers => self.headers(piece)?,
            Stage::Metadata => self.metadata(piece)?,
            Stage::Blocks => self.blocks(piece)?,
        }
        Ok(self.next())
    }

    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        if self.entries() * 8 > self.blocks.length {
            return Err(refused(
                "The vhdx image's table does not have its disk's size.",
            ));
        }
        let region_end = |region: Region| region.at.saturating_add(region.length);
        let regions = region_end(self.blocks).max(region_end(self.metadata));
        // Of the disk's last block, which may be any of them, only what the disk has of it must be there.
        let Found { size, block, .. } = self.found;
        let least = size.saturating_sub(1) % block.max(1) + 1;
        if regions > end.length || !self.places.end_before(end.length, least) {
            return Err(truncated("vhdx"));
        }
        match self.places.fit(end.length, self.found.block) {
            true => Ok(Some(self.found.size)),
            false => Err(bomb("vhdx")),
        }
    }
}

/// Where the table of blocks and the metadata are.
fn regions(table: &[u8]) -> Result<(Region, Region)> {
    let damaged = || refused("The region tables of the vhdx image are damaged.");
    let fields = Fields::of(table, "vhdx");
    let count = usize::try_from(fields.le32(8)?).unwrap_or(usize::MAX);
    if count > MOST_ENTRIES {
        return Err(damaged());
    }
    let (mut blocks, mut metadata) = (None, None);
    for entry in 0..count {
        let entry = fields.from(16 + entry * 32)?;
        let region = Region {
            at: entry.le64(16)?,
            length: u64::from(entry.le32(24)?),
        };
        let aligned = region.at.is_multiple_of(MIB) && region.length.is_multiple_of(MIB);
        if !aligned || region.at < MIB || region.length == 0 {
            return Err(damaged());
        }
        let before = match id(entry, 0)? {
            BLOCKS => blocks.replace(region),
            METADATA => metadata.replace(region),
            _ if entry.le32(28)? & 1 != 0 => {
                return Err(refused("The vhdx image needs an unknown region."));
            }
            _ => None,
        };
        if before.is_some() {
            return Err(damaged());
        }
    }
    let (blocks, metadata) = blocks.zip(metadata).ok_or_else(damaged)?;
    let overlap = blocks.at < metadata.at.saturating_add(metadata.length)
        && metadata.at < blocks.at.saturating_add(blocks.length);
    match overlap {
        true => Err(damaged()),
        false => Ok((blocks, metadata)),
    }
}

/// Whether bytes have this signature, and their checksum behind it, which counts as zeros itself.
fn is_valid(bytes: &[u8], signature: &[u8; 4]) -> bool {
    let (Some(sum), Some(rest)) = (bytes.get(4..8), bytes.get(8..)) else {
        return false;
    };
    let mut digest = CRC32C.digest();
    digest.update(signature);
    digest.update(&[0; 4]);
    digest.update(rest);
    bytes.starts_with(signature) && digest.finalize().to_le_bytes() == sum
}

/// A GUID, of which Microsoft writes the first three numbers in the other order of bytes.
fn id(fields: Fields<'_>, at: usize) -> Result<u128> {
    let numbers = (
        fields.le32(at)?,
        fields.le16(at + 4)?,
        fields.le16(at + 6)?,
        fields.be64(at + 8)?,
    );
    let (a, b, c, d) = numbers;
    Ok(u128::from(a) << 96 | u128::from(b) << 80 | u128::from(c) << 64 | u128::from(d))
}

fn damaged_metadata() -> crate::error::Error {
    refused("The metadata of the vhdx image is damaged.")
}
