//! A real disk image: a GPT with one FAT32 file system that holds files of known contents.
//!
//! The same size gives the same bytes. The file is sparse: only what is used takes room.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gpt::mbr::ProtectiveMBR;
use gpt::{GptConfig, partition_types};
use uuid::Uuid;

use crate::exit::Failure;

/// Less holds no FAT32 file system with anything in it.
pub(crate) const LEAST: u64 = 64 << 20;
/// More than a FAT32 file system of 512-byte sectors has room for.
pub(crate) const MOST: u64 = 1 << 40;
/// Where the partition begins, and what is left free at the end for the backup table.
const ALIGNMENT: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Contents at most.
const CONTENTS: u64 = 100 << 20;
const FILES: u64 = 10;
const DISK_ID: Uuid = Uuid::from_u128(0x6361_6c6f_7479_7065_8000_0000_0000_0001);
const PARTITION_ID: Uuid = Uuid::from_u128(0x6361_6c6f_7479_7065_8000_0000_0000_0002);
const README: &str = "This disk was made by `calotype demo`.\n\
    A calotype was the first photograph of which one negative gave any number of copies.\n";

/// Makes a disk of `size` bytes at `path`, reads it back with its own tables, and gives the number
/// of bytes of contents.
///
/// # Errors
/// What the file system says, or that what was read is not what was written.
pub(crate) fn make(path: &Path, size: u64) -> Result<u64, Failure> {
    let size = size / SECTOR * SECTOR;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    file.set_len(size)?;
    partition(&file, size)?;
    let contents = fill(Slice::new(&file, size)?, size)?;
    file.sync_all()?;
    check(path, size)?;
    Ok(contents)
}

fn partition(file: &File, size: u64) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("partition table: {error}"));
    let mut device = file;
    let sectors = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors)
        .overwrite_lba0(&mut device)
        .map_err(|error| failed(&error))?;
    let mut disk = GptConfig::new()
        .writable(true)
        .create_from_device(device, Some(DISK_ID))
        .map_err(|error| failed(&error))?;
    let mut partitions = BTreeMap::new();
    partitions.insert(
        1,
        gpt::partition::Partition {
            part_type_guid: partition_types::BASIC,
            part_guid: PARTITION_ID,
            first_lba: ALIGNMENT / SECTOR,
            last_lba: (size - ALIGNMENT) / SECTOR - 1,
            flags: 0,
            name: "calotype demo".to_owned(),
        },
    );
    disk.update_partitions(partitions)
        .map_err(|error| failed(&error))?;
    disk.write().map(drop).map_err(|error| failed(&error))
}

fn fill(mut slice: Slice<'_>, size: u64) -> Result<u64, Failure> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(cluster_size(size))
        .volume_id(0x0CA1_0771)
        .volume_label(*b"CALOTYPE   ");
    fatfs::format_volume(&mut slice, options)?;
    let volume = FileSystem::new(slice, FsOptions::new())?;
    let mut contents = README.len() as u64;
    {
        let root = volume.root_dir();
        root.create_file("README.TXT")?
            .write_all(README.as_bytes())?;
        let data = root.create_dir("images")?;
        let text = root.create_dir("text")?;
        let length = CONTENTS.min(size / 4) / FILES;
        for number in 0..FILES {
            let directory = data.create_dir(&format!("series {number}"))?;
            let mut out = directory.create_file("negative.raw")?;
            let mut bytes = Noise::new(number);
            let mut chunk = vec![0; 1 << 20];
            let mut left = length;
            while left > 0 {
                let part = chunk_of(&mut chunk, left);
                bytes.fill(part);
                out.write_all(part)?;
                left -= part.len() as u64;
            }
            out.flush()?;
            let mut out = text.create_file(&format!("notes on series {number}.txt"))?;
            let notes =
                format!("Series {number}: one negative, any number of prints.\n").repeat(40);
            out.write_all(notes.as_bytes())?;
            out.flush()?;
            contents += length + notes.len() as u64;
        }
    }
    volume.unmount()?;
    Ok(contents)
}

fn chunk_of(chunk: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
    &mut chunk[..length]
}

/// Opens the disk anew by its partition table, and compares files with what they must hold.
fn check(path: &Path, size: u64) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(format!("the disk can't be read back: {what}"));
    let disk = GptConfig::new()
        .open(path)
        .map_err(|error| failed(error.to_string()))?;
    let partition = disk
        .partitions()
        .get(&1)
        .ok_or_else(|| failed("no partition".to_owned()))?;
    if partition.first_lba * SECTOR != ALIGNMENT || partition.part_guid != PARTITION_ID {
        return Err(failed("another partition".to_owned()));
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let volume = FileSystem::new(Slice::new(&file, size)?, FsOptions::new())?;
    let root = volume.root_dir();
    let mut readme = String::new();
    root.open_file("README.TXT")?.read_to_string(&mut readme)?;
    if readme != README {
        return Err(failed("README.TXT has other contents".to_owned()));
    }
    let mut negative = root.open_file("images/series 3/negative.raw")?;
    let mut expected = Noise::new(3);
    let (mut found, mut wanted) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut length = CONTENTS.min(size / 4) / FILES;
    while length > 0 {
        let found = chunk_of(&mut found, length);
        negative.read_exact(found)?;
        let wanted = chunk_of(&mut wanted, length);
        expected.fill(wanted);
        if found != wanted {
            return Err(failed("a file has other contents".to_owned()));
        }
        length -= found.len() as u64;
    }
    Ok(())
}

/// A cluster size that gives FAT32 its least number of clusters, 65,525, and few enough of them.
const fn cluster_size(size: u64) -> u32 {
    const MIB: u64 = 1 << 20;
    if size <= 128 * MIB {
        512
    } else if size <= 512 * MIB {
        1024
    } else if size <= 8 * 1024 * MIB {
        4096
    } else {
        32 * 1024
    }
}

/// Bytes that look random and are not: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
/// Number Generators, 2014).
struct Noise {
    state: u64,
}

impl Noise {
    const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next bytes. All calls but the last must ask for a multiple of eight.
    fn fill(&mut self, out: &mut [u8]) {
        for word in out.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..word.len()]);
        }
    }
}

/// The partition, as a device of its own.
struct Slice<'a> {
    file: &'a File,
    length: u64,
    position: u64,
}

impl<'a> Slice<'a> {
    fn new(file: &'a File, size: u64) -> io::Result<Self> {
        let length = size
            .checked_sub(2 * ALIGNMENT)
            .ok_or_else(|| io::Error::other("the disk is too small"))?;
        Ok(Self {
            file,
            length,
            position: 0,
        })
    }

    fn room(&self, wanted: usize) -> usize {
        let left = self.length.saturating_sub(self.position);
        wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let room = self.room(buffer.len());
        let read = self
            .file
            .read_at(&mut buffer[..room], ALIGNMENT + self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Slice<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let room = self.room(buffer.len());
        let written = self
            .file
            .write_at(&buffer[..room], ALIGNMENT + self.position)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Slice<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_disk_can_be_read_back_is_sparse_and_is_the_same_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let contents = make(&one, LEAST).unwrap();
        make(&two, LEAST).unwrap();
        let facts = one.metadata().unwrap();
        assert_eq!(facts.len(), LEAST);
        assert!(contents > LEAST / 5 && contents < LEAST / 3, "{contents}");
        assert!(facts.blocks() * 512 < LEAST / 2, "{}", facts.blocks());
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
    }

    #[test]
    fn a_disk_whose_contents_changed_is_noticed() {
        use std::os::unix::fs::FileExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        make(&path, LEAST).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let place = bytes
            .windows(20)
            .position(|part| part == &README.as_bytes()[..20])
            .unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"#", place as u64).unwrap();
        assert!(check(&path, LEAST).is_err());
    }
}
