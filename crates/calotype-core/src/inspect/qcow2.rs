//! QEMU's `docs/interop/qcow2.rst`, versions 2 and 3.
//!
//! All tables are followed where the first level's ends in the first MiB, as QEMU writes it, or comes before those of the second.
//! Tables that lie far in front of it (an image was grown, and its first table moved) have passed when they are known of, and are not
//! looked at.

use super::fields::{Fields, entries};
use super::rules::{Begun, End, Next, Piece, Places, Rules, Table};
use super::{Result, bomb, disk_size, foreign, refused, truncated};
use crate::error::Error;

/// Dirty, corrupt, and another compression than deflate.
const KNOWN_FEATURES: u64 = 1 | 1 << 1 | COMPRESSION;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
/// Of the features that may be ignored: that the external data file is raw.
const RAW_EXTERNAL_DATA: u64 = 1 << 1;
/// QEMU opens no larger first level, and no larger table of reference counts.
const MOST_FIRST_LEVEL: u64 = 32 << 20;
const MOST_COUNTS: u64 = 8 << 20;
/// Bytes behind the header that are held where the first level's table ends in them: tables of the second level may come before.
const MOST_FRONT: u64 = 1 << 20;
/// Tables of the second level that are followed.
const MOST_SECOND_LEVEL: usize = 64 * 1024;
/// The bits of an entry that say where.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

#[derive(Debug)]
struct Qcow2 {
    size: u64,
    cluster_bits: u32,
    /// Where the tables end that the header names.
    tables: u64,
    table: Table,
    stage: Stage,
    /// The second level's tables that are still to come, the next one last.
    second_level: Vec<u64>,
    data: Places,
    farthest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All from the second cluster to the end of the first level's table, which begins at this place in it.
    Front(usize),
    FirstLevel,
    SecondLevel,
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let header = Fields::of(head, "qcow2");
    let version = header.be32(4)?;
    if !matches!(version, 2 | 3) {
        return Err(refused("Only versions 2 and 3 of qcow2 are accepted."));
    }
    if header.be64(8)? != 0 || header.be32(16)? != 0 {
        return Err(foreign("a backing file"));
    }
    if version == 3 {
        check_features(header)?;
    }
    match header.be32(32)? {
        0 => {}
        _ => {
            return Err(refused(
                "The qcow2 image is encrypted by itself: no server could read it.",
            ));
        }
    }
    if header.be32(60)? != 0 {
        return Err(refused("The qcow2 image holds snapshots of itself."));
    }
    let cluster_bits = header.be32(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(refused("The qcow2 image's clusters have no valid size."));
    }
    check_extensions(header, version, 1 << cluster_bits)?;
    let size = disk_size(header.be64(24)?)?;
    let first_level = first_level(header, size, cluster_bits)?;
    let counts = counts(header, cluster_bits)?;
    if first_level.0 < counts.1 && counts.0 < first_level.1 {
        return Err(refused("The tables of the qcow2 image overlap."));
    }
    let cluster = 1 << cluster_bits;
    let front = Piece {
        at: cluster,
        length: usize::try_from(first_level.1.saturating_sub(cluster)).unwrap_or(usize::MAX),
    };
    let is_in_front = first_level.0 < first_level.1 && first_level.1 <= MOST_FRONT;
    let mut rules = Qcow2 {
        size,
        cluster_bits,
        tables: first_level.1.max(counts.1),
        table: Table::new(first_level.0, first_level.1 - first_level.0),
        stage: Stage::FirstLevel,
        second_level: Vec::new(),
        data: Places::default(),
        farthest: 0,
    };
    let next = match is_in_front {
        true => {
            let place = usize::try_from(first_level.0 - cluster).unwrap_or(usize::MAX);
            rules.stage = Stage::Front(place);
            Next::Piece(front)
        }
        false => rules.next()?,
    };
    Ok((Box::new(rules), next))
}

fn check_features(header: Fields<'_>) -> Result<()> {
    let features = header.be64(72)?;
    if features & EXTERNAL_DATA != 0 || header.be64(88)? & RAW_EXTERNAL_DATA != 0 {
        return Err(foreign("an external data file"));
    }
    if features & !KNOWN_FEATURES != 0 {
        return Err(refused("The qcow2 image needs unknown features."));
    }
    let deflate = header.be32(100)? <= 104 || header.slice(104, 1)? == [0];
    let other = !deflate && header.slice(104, 1)? == [1];
    match (deflate, other, features & COMPRESSION != 0) {
        (true, _, false) | (_, true, true) => Ok(()),
        _ => Err(refused("The qcow2 image's compression is not known.")),
    }
}

/// Extensions of the header. An unknown one could name a file.
fn check_extensions(header: Fields<'_>, version: u32, cluster: u64) -> Result<()> {
    const END: u32 = 0;
    const BACKING_FORMAT: u32 = 0xe279_2aca;
    const FEATURE_NAMES: u32 = 0x6803_f857;
    const BITMAPS: u32 = 0x2385_2875;
    const DATA_FILE: u32 = 0x4441_5441;
    let mut at = match version {
        2 => 72,
        _ => header.be32(100)?,
    };
    if at % 8 != 0 || u64::from(at) > cluster || (version == 3 && at < 104) {
        return Err(refused("The qcow2 image's header has no valid length."));
    }
    // The header fills its cluster at most.
    while u64::from(at) + 8 <= cluster {
        let here = at as usize;
        let length = header.be32(here + 4)?;
        match header.be32(here)? {
            END => return Ok(()),
            BACKING_FORMAT | FEATURE_NAMES | BITMAPS => {}
            DATA_FILE => return Err(foreign("an external data file")),
            _ => {
                return Err(refused(
                    "The qcow2 image's header has an unknown extension.",
                ));
            }
        }
        at = length
            .checked_next_multiple_of(8)
            .and_then(|length| at.checked_add(8)?.checked_add(length))
            .filter(|at| u64::from(*at) <= cluster)
            .ok_or_else(|| refused("The qcow2 image's header has an extension without an end."))?;
    }
    Ok(())
}

/// Where the first level's table begins and ends.
fn first_level(header: Fields<'_>, size: u64, cluster_bits: u32) -> Result<(u64, u64)> {
    let bytes = u64::from(header.be32(36)?) * 8;
    let needed = size.div_ceil(1 << (2 * cluster_bits - 3)) * 8;
    if bytes > MOST_FIRST_LEVEL || bytes < needed {
        return Err(refused(
            "The qcow2 image's first table does not have its disk's size.",
        ));
    }
    let at = header.be64(40)?;
    table(at, bytes, cluster_bits)
}

/// Where the table of reference counts begins and ends.
fn counts(header: Fields<'_>, cluster_bits: u32) -> Result<(u64, u64)> {
    let bytes = u64::from(header.be32(56)?) << cluster_bits;
    if bytes == 0 || bytes > MOST_COUNTS {
        return Err(refused(
            "The qcow2 image's table of reference counts has no valid size.",
        ));
    }
    table(header.be64(48)?, bytes, cluster_bits)
}

fn table(at: u64, bytes: u64, cluster_bits: u32) -> Result<(u64, u64)> {
    let cluster = 1 << cluster_bits;
    match at.checked_add(bytes) {
        Some(end) if bytes == 0 || (at >= cluster && at.is_multiple_of(cluster)) => Ok((at, end)),
        _ => Err(refused("A table of the qcow2 image is where none can be.")),
    }
}

impl Qcow2 {
    fn next(&mut self) -> Result<Next> {
        if let Some(piece) = self.table.next() {
            return Ok(Next::Piece(piece));
        }
        if self.stage == Stage::FirstLevel {
            self.begin_second_level()?;
        }
        let Some(at) = self.second_level.pop() else {
            return Ok(Next::Enough);
        };
        if at < self.table.end() {
            return Err(shared());
        }
        self.table = Table::new(at, 1 << self.cluster_bits);
        self.next()
    }

    /// Orders the tables that were found. Without snapshots, none is shared.
    fn begin_second_level(&mut self) -> Result<()> {
        self.stage = Stage::SecondLevel;
        self.second_level.sort_unstable_by(|a, b| b.cmp(a));
        match self.second_level.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(shared()),
            false => Ok(()),
        }
    }

    /// Looks at the first level, and at the tables of the second that come before its end.
    fn examine_front(&mut self, piece: &[u8], place: usize) -> Result<()> {
        self.examine_first_level(piece.get(place..).unwrap_or_default(), 0)?;
        self.begin_second_level()?;
        let cluster = 1 << self.cluster_bits;
        // What is in the queue from here on is behind it.
        let end = self.table.end();
        while let Some(at) = self.second_level.pop_if(|at| *at < end) {
            let from = usize::try_from(at - cluster).unwrap_or(usize::MAX);
            let table = piece
                .get(from..)
                .and_then(|rest| rest.get(..cluster as usize));
            self.examine_second_level(table.ok_or_else(shared)?)?;
        }
        self.table = Table::new(end, 0);
        Ok(())
    }

    /// `least` is where the first table of the second level can be that is still to come.
    fn examine_first_level(&mut self, piece: &[u8], least: u64) -> Result<()> {
        for entry in entries(piece).map(u64::from_be_bytes) {
            let at = entry & PLACE;
            if at == 0 {
                continue;
            }
            self.check_place(at)?;
            self.farthest = self.farthest.max(at);
            if at >= least && self.second_level.len() < MOST_SECOND_LEVEL {
                self.second_level.push(at);
            }
        }
        Ok(())
    }

    fn examine_second_level(&mut self, piece: &[u8]) -> Result<()> {
        for entry in entries(piece).map(u64::from_be_bytes) {
            if entry & COMPRESSED != 0 {
                // The lower bits are the place, as many as the clusters' size leaves to it.
                let bits = 62 - (self.cluster_bits - 8);
                self.farthest = self.farthest.max(entry & ((1 << bits) - 1));
            } else if entry & PLACE != 0 {
                self.check_place(entry & PLACE)?;
                if entry & ZERO == 0 {
                    self.data.add(entry & PLACE);
                }
            }
        }
        Ok(())
    }

    fn check_place(&self, at: u64) -> Result<()> {
        if at.is_multiple_of(1 << self.cluster_bits) {
            return Ok(());
        }
        Err(refused(
            "A table of the qcow2 image refers to the middle of a cluster.",
        ))
    }
}

impl Rules for Qcow2 {
    fn examine(&mut self, piece: &[u8]) -> Result<Next> {
        match self.stage {
            Stage::Front(place) => self.examine_front(piece, place)?,
            Stage::FirstLevel => self.examine_first_level(piece, self.table.end())?,
            Stage::SecondLevel => self.examine_second_level(piece)?,
        }
        self.next()
    }

    fn held(&self) -> usize {
        self.second_level.capacity() * size_of::<u64>()
    }

    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        if self.tables > end.length || self.farthest >= end.length {
            return Err(truncated("qcow2"));
        }
        let cluster = 1 << self.cluster_bits;
        match self.data.end_before(end.length, 1) {
            false => Err(truncated("qcow2")),
            true if !self.data.fit(end.length, cluster) => Err(bomb("qcow2")),
            true => Ok(Some(self.size)),
        }
    }
}

fn shared() -> Error {
    refused("Tables of the qcow2 image are shared.")
}
