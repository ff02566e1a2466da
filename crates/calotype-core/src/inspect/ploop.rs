//! The format of Parallels and of `ploop`: QEMU's `docs/interop/parallels.rst`. It refers to nothing outside itself.

use super::fields::{Fields, SECTOR};
use super::rules::{Begun, End, Next, Rules};
use super::{Result, disk_size, refused, truncated};

const SHORT_SIZE: &[u8] = b"WithoutFreeSpace";
const LONG_SIZE: &[u8] = b"WithouFreSpacExt";

#[derive(Debug)]
struct Ploop {
    size: u64,
    /// Where the data begins.
    data: u64,
}

/// Whether the header is there.
pub(super) fn is_there(head: &[u8]) -> bool {
    head.starts_with(SHORT_SIZE) || head.starts_with(LONG_SIZE)
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let header = Fields::of(head, "ploop");
    if header.le32(16)? != 2 {
        return Err(refused("Only version 2 of ploop images is accepted."));
    }
    let (cluster, count) = (u64::from(header.le32(28)?), u64::from(header.le32(32)?));
    let sectors = match head.starts_with(LONG_SIZE) {
        true => header.le64(36)?,
        false => u64::from(header.le32(36)?),
    };
    let size = disk_size(sectors.saturating_mul(SECTOR))?;
    if cluster == 0 || cluster.saturating_mul(count) < sectors {
        return Err(refused(
            "The ploop image's table does not have its disk's size.",
        ));
    }
    let data = (u64::from(header.le32(48)?) * SECTOR).max(64 + count * 4);
    Ok((Box::new(Ploop { size, data }), Next::Enough))
}

impl Rules for Ploop {
    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        match self.data > end.length {
            true => Err(truncated("ploop")),
            false => Ok(Some(self.size)),
        }
    }
}
