//! Mutates images and inspects them: nothing may panic, hold more than its share of memory, look at bytes again and again, or
//! depend on how the stream is cut. Checksums are mostly made right again, so that what is behind them is reached.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use calotype_core::inspect::Inspector;
use calotype_core::ova::{ArchiveDisk, Description, Directory, MOST_DISKS};
use calotype_core::size::ByteSize;

use super::samples::{Sample, VHDX_SUMMED, ova_summed, vhd_summed};

/// Memory that an inspection may hold.
const MOST_MEMORY: usize = 2 << 20;
/// Bytes by which a mutation may lengthen an image.
const SPARE: usize = 2048;
const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
static CRC32C: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);
/// What a format is known by, and where.
const MAGICS: [(usize, &[u8]); 10] = [
    (0, b"QFI\xfb\0\0\0\x03"),
    (0, b"KDMV\x01\0\0\0"),
    (0, b"conectix"),
    (0, b"vhdxfile"),
    (0, b"LUKS\xba\xbe\0\x01"),
    (0, b"# Disk DescriptorFile\n"),
    (0x40, b"\x7f\x10\xda\xbe"),
    (510, b"\x55\xaa"),
    (0x8001, b"CD001"),
    (0, b"WithoutFreeSpace"),
];

type Verdict = Result<Option<u64>, String>;

/// What came of the executions.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    /// Images that were accepted.
    pub(crate) accepted: u64,
    /// Images that were refused.
    pub(crate) refused: u64,
    /// Bytes that were held at most.
    pub(crate) memory: usize,
}

/// Inspects `executions` mutations of the samples. The same seed makes the same ones.
///
/// # Errors
/// The first one that went wrong, with what repeats it.
pub(crate) fn run(samples: &[&Sample], seed: u64, executions: u64) -> Result<Outcome, String> {
    let mut images: Vec<Image> = samples.iter().map(|sample| Image::new(sample)).collect();
    let mut outcome = Outcome::default();
    for execution in 0..executions {
        let mut random = Random::new(seed.wrapping_add(execution));
        let chosen = random.below(images.len());
        let (sample, image) = (samples[chosen], &mut images[chosen]);
        image.mutate(&mut random);
        let caught = catch_unwind(AssertUnwindSafe(|| judge(sample, image, &mut random)));
        let judged = caught.unwrap_or_else(|_| Err("it panicked".to_owned()));
        image.restore();
        let (verdict, memory) = judged.map_err(|why| {
            let seed = seed.wrapping_add(execution);
            format!("{why}: seed {seed}, {} as {}", sample.name, sample.format)
        })?;
        outcome.memory = outcome.memory.max(memory);
        match verdict {
            Ok(_) => outcome.accepted += 1,
            Err(_) => outcome.refused += 1,
        }
    }
    Ok(outcome)
}

/// Inspects the sample as it is.
///
/// # Errors
/// Where it is refused and should not be, or the reverse.
pub(crate) fn check(sample: &Sample) -> Result<(), String> {
    let (verdict, _) = inspect(sample.format, sample.container, &[&sample.bytes])?;
    if verdict.is_ok() == sample.outcome.is_ok() {
        return Ok(());
    }
    Err(format!("{} as {}: {verdict:?}", sample.name, sample.format))
}

fn judge(sample: &Sample, image: &Image, random: &mut Random) -> Result<(Verdict, usize), String> {
    let bytes = image.bytes();
    let declared = match random.below(8) {
        0 => "raw",
        1 => "zvhd2",
        _ => sample.format,
    };
    let (verdict, memory) = inspect(declared, sample.container, &[bytes])?;
    if sample.container == "ova" {
        look_into(bytes)?;
    }
    if random.below(4) == 0 {
        let parts = cut(bytes, random);
        let (other, _) = inspect(declared, sample.container, &parts)?;
        if other != verdict {
            return Err(format!("cut, it is {other:?}; whole, it is {verdict:?}"));
        }
    }
    Ok((verdict, memory))
}

/// The disks of an archive, as an import finds them: by its headers and its description alone.
pub(crate) fn disks_in(bytes: &[u8]) -> calotype_core::Result<Vec<ArchiveDisk>> {
    let part = |range: Range<u64>| &bytes[range.start as usize..range.end as usize];
    let mut directory = Directory::new(ByteSize::new(bytes.len() as u64));
    while let Some(header) = directory.next_header()? {
        directory.take(part(header))?;
    }
    let description = Description::parse(part(directory.description()?))?;
    directory.disks(&description)
}

/// Whatever is found lies in the archive, and apart from each other.
fn look_into(bytes: &[u8]) -> Result<(), String> {
    let Ok(mut disks) = disks_in(bytes) else {
        return Ok(());
    };
    disks.sort_by_key(|disk| disk.bytes.start);
    let mut free = 512;
    for disk in &disks {
        let Range { start, end } = disk.bytes;
        if start < free || start >= end || end > bytes.len() as u64 {
            return Err(format!("a disk is at {start} to {end}"));
        }
        free = end;
    }
    match disks.len() {
        1..=MOST_DISKS => Ok(()),
        found => Err(format!("{found} disks were found")),
    }
}

fn inspect(declared: &str, container: &str, parts: &[&[u8]]) -> Result<(Verdict, usize), String> {
    let mut inspector = Inspector::new(declared, container);
    let fed = parts.iter().try_for_each(|part| inspector.feed(part));
    let verdict = fed.and_then(|()| inspector.finish());
    let verdict = verdict
        .map(|size| size.map(ByteSize::bytes))
        .map_err(|error| error.message().to_owned());
    let cost = inspector.cost();
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if cost.memory > MOST_MEMORY || cost.examined > 2 * length as u64 {
        return Err(format!("{length} bytes took {cost:?}"));
    }
    Ok((verdict, cost.memory))
}

/// The same bytes in pieces: a few large ones, or many small ones.
fn cut<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let largest = [3, 700, 5000, 70_000, 400_000][random.below(5)].max(bytes.len() / 200);
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (part, rest) = bytes.split_at(random.below(largest + 1).min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// A sample that is mutated in place, and restored.
struct Image {
    format: &'static str,
    whole: usize,
    length: usize,
    room: Vec<u8>,
    /// Where there is something else than zeros.
    spots: Vec<usize>,
    before: Vec<(usize, Vec<u8>)>,
}

impl Image {
    fn new(sample: &Sample) -> Self {
        let mut room = sample.bytes.clone();
        // The data that fills an image tells it nothing: the headers are in front.
        let spots = (0..room.len()).filter(|at| room[*at] != 0).take(4096);
        let format = match sample.container {
            "ova" => "ova",
            _ => sample.format,
        };
        let spots: Vec<usize> = spots.collect();
        room.resize(room.len() + SPARE, 0);
        Self {
            format,
            whole: sample.bytes.len(),
            length: sample.bytes.len(),
            room,
            spots,
            before: Vec::new(),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.room[..self.length]
    }

    fn put(&mut self, at: usize, part: &[u8]) {
        let end = (at + part.len()).min(self.room.len());
        if at < end {
            self.before.push((at, self.room[at..end].to_vec()));
            self.room[at..end].copy_from_slice(&part[..end - at]);
        }
    }

    fn restore(&mut self) {
        while let Some((at, part)) = self.before.pop() {
            self.room[at..at + part.len()].copy_from_slice(&part);
        }
        self.length = self.whole;
    }

    fn spot(&self, random: &mut Random) -> usize {
        if self.spots.is_empty() || random.below(4) == 0 {
            return random.below(self.whole + 1);
        }
        (self.spots[random.below(self.spots.len())] + random.below(16)).saturating_sub(8)
    }

    fn mutate(&mut self, random: &mut Random) {
        for _ in 0..=random.below(4) {
            let at = self.spot(random);
            match random.below(12) {
                0 | 1 => {
                    let byte = self.room[at] ^ (1 << random.below(8));
                    self.put(at, &[byte]);
                }
                2 => self.put(at, &[random.next() as u8]),
                3..=6 => self.put(at, &number(random)),
                7 => {
                    let from = self.spot(random);
                    let end = (from + random.below(64)).min(self.room.len());
                    let part = self.room[from..end].to_vec();
                    self.put(at, &part);
                }
                8 => self.put(at, &vec![0; random.below(64)]),
                9 => {
                    let end = (at + 8).min(self.room.len());
                    let part = self.room[at..end].repeat(random.below(16));
                    self.put(at, &part);
                }
                10 => self.length = at.min(self.length),
                _ => {
                    let (place, magic) = MAGICS[random.below(MAGICS.len())];
                    match random.below(4) {
                        0 => self.put(place, magic),
                        _ => self.length = (self.length + random.below(SPARE)).min(self.room.len()),
                    }
                }
            }
        }
        if random.below(4) > 0 {
            self.sum();
        }
    }

    /// Makes the checksums right again.
    fn sum(&mut self) {
        match self.format {
            "vhd" => {
                let last = self.length.saturating_sub(512);
                for (at, length, sum) in [(0, 512, 64), (512, 1024, 36), (last, 512, 64)] {
                    if let Some(part) = self.room.get(at..at + length) {
                        let part = vhd_summed(part.to_vec(), sum);
                        self.put(at, &part);
                    }
                }
            }
            "vhdx" => {
                let touched = |(at, length): (usize, usize)| {
                    let mut places = self.before.iter();
                    places.any(|(place, part)| *place < at + length && at < place + part.len())
                };
                let stale: Vec<_> = VHDX_SUMMED.into_iter().filter(|it| touched(*it)).collect();
                for (at, length) in stale {
                    if at + length <= self.room.len() {
                        self.put(at + 4, &[0; 4]);
                        let sum = CRC32C.checksum(&self.room[at..at + length]);
                        self.put(at + 4, &sum.to_le_bytes());
                    }
                }
            }
            "gpt" => {
                for (header, entries) in [(512, 1024), (63 * 512, 62 * 512)] {
                    if header + 92 <= self.room.len() {
                        let sum = CRC32.checksum(&self.room[entries..entries + 512]);
                        self.put(header + 88, &sum.to_le_bytes());
                        self.put(header + 16, &[0; 4]);
                        let sum = CRC32.checksum(&self.room[header..header + 92]);
                        self.put(header + 16, &sum.to_le_bytes());
                    }
                }
            }
            "ova" => {
                for at in (0..self.whole.saturating_sub(511)).step_by(512) {
                    if self.room[at..].get(257..262) == Some(b"ustar") {
                        let header = ova_summed(self.room[at..at + 512].to_vec());
                        self.put(at, &header);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A number at the edges of numbers, in any width and order of bytes.
fn number(random: &mut Random) -> Vec<u8> {
    let number = match random.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => (1 << random.below(64)) - 1,
        4 => random.below(70_000) as u64,
        _ => random.next(),
    };
    match random.below(4) {
        0 => number.to_be_bytes().to_vec(),
        1 => number.to_le_bytes().to_vec(),
        2 => (number as u32).to_be_bytes().to_vec(),
        _ => (number as u32).to_le_bytes().to_vec(),
    }
}

/// Sebastiano Vigna's splitmix64.
struct Random(u64);

impl Random {
    /// Seeds that follow each other must not begin at places that do.
    fn new(seed: u64) -> Self {
        Self(Self(seed).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
