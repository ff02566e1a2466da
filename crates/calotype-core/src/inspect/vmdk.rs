//! VMware's Virtual Disk Format 5.0: one file with its descriptor in it, sparse or streamed.
//!
//! A descriptor without its extents is refused, and so is one that is not wholly understood: an extent's name is a path that a
//! reader would open. The tables of a sparse disk are followed, and the grains of a streamed one counted.

mod descriptor;

use super::fields::{Fields, SECTOR, entries, is_zero};
use super::rules::{Begun, End, Next, Piece, Places, Rules, Table};
use super::{Result, bomb, disk_size, foreign, refused, truncated};

/// The directory's place is in the footer.
const AT_THE_END: u64 = u64::MAX;
const SPARE_DIRECTORY: u32 = 1 << 1;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;
/// The descriptor's place and its largest size, as QEMU has them.
const DESCRIPTOR: u64 = 1;
const MOST_DESCRIPTOR: u64 = (1 << 20) / SECTOR - 1;
const MOST_DIRECTORY: u64 = 32 << 20;
/// Tables of grains that are followed.
const MOST_TABLES: usize = 64 * 1024;
/// A marker's fields, before the data or the padding.
const MARKER: usize = 16;

#[derive(Debug)]
struct Vmdk {
    header: Header,
    stage: Stage,
    /// The farthest of the tables of grains.
    tables: u64,
    grains: Places,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    version: u32,
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: u64,
    entries: u64,
    spare_directory: u64,
    directory: u64,
    overhead: u64,
}

#[derive(Debug)]
enum Stage {
    Descriptor,
    /// The table of tables of grains.
    Directory {
        table: Table,
        found: Vec<u64>,
    },
    /// Tables of grains; those to come are in `left`, the next one last.
    Tables {
        table: Table,
        left: Vec<u64>,
    },
    /// The stream's markers, of which the next is at `at`.
    Markers {
        at: u64,
        grains: u64,
        ended: bool,
    },
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let fields = Fields::of(head, "vmdk");
    if !head.starts_with(b"KDMV") {
        return Err(foreign("the extents of a VMDK descriptor"));
    }
    let header = Header::read(fields)?;
    header.check()?;
    // The four characters that a transfer as text would have changed.
    if fields.slice(73, 4)? != b"\n \r\n" {
        return Err(refused("The header of the vmdk image is damaged."));
    }
    let descriptor = Piece {
        at: DESCRIPTOR * SECTOR,
        length: usize::try_from(header.descriptor * SECTOR).unwrap_or(usize::MAX),
    };
    let rules = Vmdk {
        header,
        stage: Stage::Descriptor,
        tables: 0,
        grains: Places::default(),
    };
    Ok((Box::new(rules), Next::Piece(descriptor)))
}

impl Header {
    fn read(fields: Fields<'_>) -> Result<Self> {
        let version = fields.le32(4)?;
        if !matches!(version, 1..=3) {
            return Err(refused("Only versions 1 to 3 of VMDK are accepted."));
        }
        if fields.le64(28)? != DESCRIPTOR {
            return Err(refused("The vmdk image has no descriptor of its own."));
        }
        Ok(Self {
            version,
            flags: fields.le32(8)?,
            capacity: fields.le64(12)?,
            grain: fields.le64(20)?,
            descriptor: fields.le64(36)?,
            entries: u64::from(fields.le32(44)?),
            spare_directory: fields.le64(48)?,
            directory: fields.le64(56)?,
            overhead: fields.le64(64)?,
        })
    }

    fn check(&self) -> Result<()> {
        if !(1..=MOST_DESCRIPTOR).contains(&self.descriptor) {
            return Err(refused("The vmdk image's descriptor has no valid size."));
        }
        // A reader takes a disk of no size for a descriptor, and opens what it names.
        if self.capacity == 0 {
            return Err(foreign("extents instead of its own bytes"));
        }
        disk_size(self.capacity.saturating_mul(SECTOR))?;
        let grain_is_valid = self.grain.is_power_of_two() && (8..=1 << 16).contains(&self.grain);
        let table_is_valid = self.entries.is_power_of_two() && self.entries <= 512;
        if !grain_is_valid || !table_is_valid || self.directory_length() > MOST_DIRECTORY {
            return Err(refused("The vmdk image's tables have no valid size."));
        }
        // What is streamed is compressed.
        if self.flags & MARKERS != 0 && self.flags & COMPRESSED == 0 {
            return Err(refused("The vmdk image's flags contradict each other."));
        }
        Ok(())
    }

    fn grains(&self) -> u64 {
        self.capacity.div_ceil(self.grain)
    }

    fn directory_length(&self) -> u64 {
        self.grains().div_ceil(self.entries) * 4
    }

    /// Whether the directories are in an image of `length` bytes.
    fn directories_fit(&self, length: u64) -> bool {
        let spare = (self.flags & SPARE_DIRECTORY != 0).then_some(self.spare_directory);
        let mut places = [Some(self.directory), spare].into_iter().flatten();
        places.all(|place| {
            let end = place.checked_mul(SECTOR);
            let end = end.and_then(|at| at.checked_add(self.directory_length()));
            end.is_some_and(|end| end <= length)
        })
    }
}

impl Vmdk {
    /// What is looked at once the descriptor is understood: tables in front of the grains, and then the grains of a stream.
    fn after_descriptor(&mut self) -> Result<Next> {
        if self.header.directory == AT_THE_END {
            return self.first_marker();
        }
        let at = self.place(self.header.directory)?;
        let mut table = Table::new(at, self.header.directory_length());
        let next = table.next().map_or(Next::Enough, Next::Piece);
        let found = Vec::new();
        self.stage = Stage::Directory { table, found };
        Ok(next)
    }

    fn first_marker(&mut self) -> Result<Next> {
        if self.header.flags & MARKERS == 0 {
            return Ok(Next::Enough);
        }
        let at = self.place(self.header.overhead)?;
        self.stage = Stage::Markers {
            at,
            grains: 0,
            ended: false,
        };
        Ok(Next::PieceOrEnd(Piece { at, length: MARKER }))
    }

    /// A place behind the descriptor.
    fn place(&self, sector: u64) -> Result<u64> {
        let end_of_descriptor = (DESCRIPTOR + self.header.descriptor) * SECTOR;
        sector
            .checked_mul(SECTOR)
            .filter(|at| *at >= end_of_descriptor)
            .ok_or_else(|| refused("A table of the vmdk image is where none can be."))
    }

    fn marker(&mut self, piece: &[u8]) -> Result<Next> {
        const END_OF_STREAM: u32 = 0;
        const LAST_KIND: u32 = 3;
        let Stage::Markers { at, grains, ended } = &mut self.stage else {
            return Ok(Next::Enough);
        };
        let fields = Fields::of(piece, "vmdk");
        let (value, size, kind) = (fields.le64(0)?, fields.le32(8)?, fields.le32(12)?);
        let length = if size > 0 {
            *grains += 1;
            let too_large = u64::from(size) > self.header.grain * SECTOR * 2;
            if too_large || *grains > self.header.grains() || value >= self.header.capacity {
                return Err(bomb("vmdk"));
            }
            // The padding of what is written as a stream may be left out at its end.
            (12 + u64::from(size)).next_multiple_of(SECTOR)
        } else if kind == END_OF_STREAM && value == 0 {
            *ended = true;
            *at = at.saturating_add(SECTOR);
            return Ok(Next::Enough);
        } else if kind <= LAST_KIND {
            let data = value.checked_mul(SECTOR);
            data.and_then(|data| data.checked_add(SECTOR))
                .ok_or_else(|| truncated("vmdk"))?
        } else {
            return Err(refused("The vmdk image has an unknown marker."));
        };
        *at = at.checked_add(length).ok_or_else(|| truncated("vmdk"))?;
        Ok(Next::PieceOrEnd(Piece {
            at: *at,
            length: MARKER,
        }))
    }

    fn directory(&mut self, piece: &[u8]) -> Result<Next> {
        let Stage::Directory { table, found } = &mut self.stage else {
            return Ok(Next::Enough);
        };
        let end = table.end();
        for entry in entries(piece).map(u32::from_le_bytes) {
            let at = u64::from(entry) * SECTOR;
            self.tables = at.max(self.tables);
            if at >= end && found.len() < MOST_TABLES {
                found.push(at);
            }
        }
        if let Some(piece) = table.next() {
            return Ok(Next::Piece(piece));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        self.stage = Stage::Tables {
            table: Table::new(end, 0),
            left: std::mem::take(found),
        };
        self.next_table()
    }

    fn table(&mut self, piece: &[u8]) -> Result<Next> {
        /// Grains that are zeros.
        const ZEROED: u32 = 1;
        for entry in entries(piece).map(u32::from_le_bytes) {
            if entry > ZEROED {
                self.grains.add(u64::from(entry) * SECTOR);
            }
        }
        self.next_table()
    }

    fn next_table(&mut self) -> Result<Next> {
        let Stage::Tables { table, left } = &mut self.stage else {
            return Ok(Next::Enough);
        };
        if let Some(piece) = table.next() {
            return Ok(Next::Piece(piece));
        }
        let Some(at) = left.pop() else {
            return self.first_marker();
        };
        if at < table.end() {
            return Err(refused("Tables of the vmdk image are shared."));
        }
        *table = Table::new(at, self.header.entries * 4);
        Ok(table.next().map_or(Next::Enough, Next::Piece))
    }

    fn footer(&self, end: &End<'_>) -> Result<Header> {
        const MARKER_OF_FOOTER: u32 = 3;
        let wrong = || refused("The vmdk image's footer is not that of its header.");
        let tail = end.last(3 * SECTOR as usize);
        let (marker, rest) = tail.split_at_checked(SECTOR as usize).ok_or_else(wrong)?;
        let (footer, last) = rest.split_at(SECTOR as usize);
        let kind = Fields::of(marker, "vmdk").le32(12)?;
        if kind != MARKER_OF_FOOTER
            || !is_zero(&marker[8..12])
            || !is_zero(&marker[16..])
            || !is_zero(last)
        {
            return Err(truncated("vmdk"));
        }
        let header = Header::read(Fields::of(footer, "vmdk"))?;
        let of = |header: &Header| {
            let Header {
                version,
                flags,
                capacity,
                grain,
                descriptor,
                entries,
                ..
            } = *header;
            (version, flags, capacity, grain, descriptor, entries)
        };
        let is_same = footer.starts_with(b"KDMV") && of(&header) == of(&self.header);
        match is_same && header.directory != AT_THE_END {
            true => Ok(header),
            false => Err(wrong()),
        }
    }
}

impl Rules for Vmdk {
    fn examine(&mut self, piece: &[u8]) -> Result<Next> {
        match &mut self.stage {
            Stage::Descriptor => {
                descriptor::check(piece, self.header.capacity)?;
                self.after_descriptor()
            }
            Stage::Markers { .. } => self.marker(piece),
            Stage::Directory { .. } => self.directory(piece),
            Stage::Tables { .. } => self.table(piece),
        }
    }

    fn held(&self) -> usize {
        let list = match &self.stage {
            Stage::Directory { found, .. } => found,
            Stage::Tables { left, .. } => left,
            _ => return 0,
        };
        list.capacity() * size_of::<u64>()
    }

    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        let header = match self.header.directory {
            AT_THE_END => self.footer(end)?,
            _ => self.header,
        };
        let are_there = self.tables < end.length && self.grains.end_before(end.length, 1);
        if !header.directories_fit(end.length) || !are_there {
            return Err(truncated("vmdk"));
        }
        // QEMU, whose directory is in front, leaves zeros behind a stream's end.
        let at_the_end = self.header.directory == AT_THE_END;
        if let Stage::Markers { at, ended, .. } = &self.stage
            && at_the_end
            && *ended
            && *at != end.length
        {
            return Err(refused("The vmdk image goes on behind its end."));
        }
        let least = match header.flags & COMPRESSED {
            0 => header.grain * SECTOR,
            _ => SECTOR,
        };
        match self.grains.fit(end.length, least) {
            true => Ok(Some(self.header.capacity * SECTOR)),
            false => Err(bomb("vmdk")),
        }
    }
}
