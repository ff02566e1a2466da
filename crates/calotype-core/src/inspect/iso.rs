//! ECMA-119 (ISO 9660), and UDF's volume recognition (ECMA-167). The file system is not walked.

use super::fields::Fields;
use super::rules::{Begun, End, Next, Rules};
use super::{Result, refused, truncated};

const DESCRIPTOR: usize = 0x8000;
const PRIMARY: &[u8] = b"\x01CD001";

#[derive(Debug)]
struct Iso {
    /// The volume's size, where it is said.
    size: Option<u64>,
}

/// Whether the descriptor is there.
pub(super) fn is_there(head: &[u8]) -> bool {
    let name = head.get(DESCRIPTOR + 1..DESCRIPTOR + 6);
    // UDF alone begins with BEA01, and its own descriptor follows.
    matches!(name, Some(b"CD001" | b"NSR02" | b"NSR03" | b"BEA01"))
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let fields = Fields::of(head, "iso").from(DESCRIPTOR)?;
    let size = match fields.slice(0, 6)? == PRIMARY {
        true => Some(volume(fields)?),
        false => None,
    };
    Ok((Box::new(Iso { size }), Next::Enough))
}

/// ECMA-119, 8.4: blocks in the volume times the length of a block, each written in both orders of bytes.
fn volume(fields: Fields<'_>) -> Result<u64> {
    let (blocks, length) = (fields.le32(80)?, fields.le16(128)?);
    if blocks != fields.be32(84)? || length != fields.be16(130)? {
        return Err(refused("The descriptor of the iso image is damaged."));
    }
    Ok(u64::from(blocks) * u64::from(length))
}

impl Rules for Iso {
    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        match self.size {
            Some(size) if size > end.length => Err(truncated("iso")),
            size => Ok(size),
        }
    }
}
