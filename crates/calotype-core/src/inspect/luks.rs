//! LUKS On-Disk Format Specification 1.2.3. Nothing is decrypted: what is inside is between its user and the server.

use super::fields::{Fields, SECTOR};
use super::rules::{Begun, End, Next, Rules};
use super::{Result, refused, truncated};

pub(super) const MAGIC: &[u8] = b"LUKS\xba\xbe";

#[derive(Debug)]
struct Luks {
    /// Where what is encrypted begins.
    payload: u64,
}

pub(super) fn begin(head: &[u8]) -> Result<Begun> {
    let header = Fields::of(head, "luks");
    // QEMU and Glance know no other.
    if header.be16(6)? != 1 {
        return Err(refused("Only version 1 of LUKS is accepted."));
    }
    let payload = u64::from(header.be32(104)?) * SECTOR;
    let key_length = header.be32(108)?;
    let slots = (0..8).map(|slot| slot_is_valid(header, slot, u64::from(key_length), payload));
    let slots = slots.collect::<Result<Vec<bool>>>()?;
    if !(16..=64).contains(&key_length) || slots.contains(&false) {
        return Err(refused("The header of the luks image is damaged."));
    }
    Ok((Box::new(Luks { payload }), Next::Enough))
}

/// Whether a slot is marked as used or free, and its material is in front of the payload. A payload of offset 0 means that the
/// header is apart, and so is not accepted.
fn slot_is_valid(header: Fields<'_>, slot: usize, key: u64, payload: u64) -> Result<bool> {
    const FREE: u32 = 0x0000_dead;
    const USED: u32 = 0x00ac_71f3;
    let at = 208 + slot * 48;
    let (state, material) = (header.be32(at)?, u64::from(header.be32(at + 40)?) * SECTOR);
    let length = key * u64::from(header.be32(at + 44)?);
    Ok(match state {
        FREE => true,
        USED => material
            .checked_add(length)
            .is_some_and(|end| end <= payload),
        _ => false,
    })
}

impl Rules for Luks {
    fn finish(&self, end: &End<'_>) -> Result<Option<u64>> {
        let size = end.length.checked_sub(self.payload);
        size.map(Some).ok_or_else(|| truncated("luks"))
    }
}
