//! Numbers in headers, read with their bounds, and the sums that guard some of them.

use super::{Result, refused};
use crate::error::Error;

/// Bytes of a sector, in which most formats count.
pub(super) const SECTOR: u64 = 512;

/// CRC-32 as in Ethernet: partition tables.
pub(super) const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// CRC-32C: VHDX, of whole regions. Sixteen bytes at a time; a static, because its tables are large.
pub(super) static CRC32C: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

/// A header's bytes. What lies outside them is a refusal that names the format.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    format: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8], format: &'static str) -> Self {
        Self { bytes, format }
    }

    /// The fields that begin at `at`.
    pub(super) fn from(self, at: usize) -> Result<Self> {
        let bytes = self.bytes.get(at..).ok_or_else(|| self.short())?;
        Ok(Self { bytes, ..self })
    }

    pub(super) fn slice(self, at: usize, length: usize) -> Result<&'a [u8]> {
        let end = at.checked_add(length);
        end.and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| self.short())
    }

    pub(super) fn be16(self, at: usize) -> Result<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(super) fn be32(self, at: usize) -> Result<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(super) fn be64(self, at: usize) -> Result<u64> {
        self.array(at).map(u64::from_be_bytes)
    }

    pub(super) fn le16(self, at: usize) -> Result<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn le32(self, at: usize) -> Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn le64(self, at: usize) -> Result<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn array<const N: usize>(self, at: usize) -> Result<[u8; N]> {
        let slice = self.slice(at, N)?;
        slice.try_into().map_err(|_| self.short())
    }

    fn short(self) -> Error {
        refused(format!(
            "The {} image ends before its header does.",
            self.format
        ))
    }
}

/// The numbers of a table, each `N` bytes.
pub(super) fn entries<const N: usize>(piece: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    let (entries, _) = piece.as_chunks::<N>();
    entries.iter().copied()
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
