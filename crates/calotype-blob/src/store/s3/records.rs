//! The small objects beside the segments: pointers, markers, notes, and what stands before a manifest.
//!
//! # Formats (integers big-endian)
//! ```text
//! pointer   "calotype blob 1\n" | the attempt's name "/" the manifest's "\n"
//! marker    "calotype attempt 1\n" | "slot " decimal "\n", or "over\n" once nobody may commit the attempt any more
//! notes     "CALONTS1" | slot u64 | notes, to the end but for the sum
//! note      index u32 | attempt [16] | length of the segment u32 | length u16 | bytes
//! contents  "CALOSEG1" | slot u64 | number of segments u32 | segments, by rising index | the manifest's bytes | sum
//! segment   index u32 | attempt [16] | length u32
//! sum       the first 8 bytes of SHA-256 over all before it
//! ```
//! The sums find damage, not forgers: an entry that lies leads to bytes that do not authenticate.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use calotype_core::{Error, Result};

use super::names::AttemptId;
use crate::manifest;
use crate::store::{NOTE_LIMIT, Note};

const POINTER: &str = "calotype blob 1\n";
const MARKER: &str = "calotype attempt 1\n";
const NOTES: &[u8; 8] = b"CALONTS1";
const CONTENTS: &[u8; 8] = b"CALOSEG1";
const SUM: usize = 8;

/// The most bytes of a pointer or a marker.
pub(super) const SMALL: u64 = 256;
/// The most bytes of an object with notes: those of all segments that there may be.
pub(super) const NOTES_LIMIT: u64 = 512 << 20;
/// The most bytes of a manifest with what stands before it.
pub(super) const CONTENTS_LIMIT: u64 = manifest::LIMIT as u64 + 64 + 24 * manifest::MAX_SEGMENTS;

/// Where a segment's stored bytes are, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) attempt: AttemptId,
    pub(super) length: u32,
}

/// The segments of a blob or of an attempt.
pub(super) type Places = BTreeMap<u32, Place>;

/// A note, with the place of its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedNote {
    pub(super) place: Place,
    pub(super) note: Note,
}

pub(super) fn pointer(attempt: AttemptId, manifest: &str) -> Bytes {
    Bytes::from(format!("{POINTER}{attempt}/{manifest}\n"))
}

/// The attempt that a pointer leads to, and the name of its manifest.
pub(super) fn read_pointer(bytes: &[u8]) -> Option<(AttemptId, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (attempt, name) = text
        .strip_prefix(POINTER)?
        .strip_suffix('\n')?
        .split_once('/')?;
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    let attempt = attempt.parse().ok()?;
    plain.then(|| (attempt, name.to_owned()))
}

pub(super) fn marker(slot: u64) -> Bytes {
    Bytes::from(format!("{MARKER}slot {slot}\n"))
}

pub(super) fn marker_over() -> Bytes {
    Bytes::from(format!("{MARKER}over\n"))
}

/// The slots of an attempt that may be committed; nothing of one that may not.
pub(super) fn read_marker(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.strip_prefix(MARKER)?;
    text.strip_prefix("slot ")?.strip_suffix('\n')?.parse().ok()
}

pub(super) fn notes<'a>(slot: u64, notes: impl Iterator<Item = &'a PlacedNote>) -> Result<Bytes> {
    let mut out = NOTES.to_vec();
    out.extend_from_slice(&slot.to_be_bytes());
    for PlacedNote { place, note } in notes {
        let length = u16::try_from(note.bytes.len())
            .ok()
            .filter(|length| usize::from(*length) <= NOTE_LIMIT)
            .ok_or_else(|| Error::internal("a note is too long"))?;
        out.extend_from_slice(&note.index.to_be_bytes());
        out.extend_from_slice(&place.attempt.0);
        out.extend_from_slice(&place.length.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&note.bytes);
    }
    add_sum(&mut out);
    Ok(Bytes::from(out))
}

/// The notes of an object for slots of this size; nothing where it is not whole.
pub(super) fn read_notes(bytes: &Bytes, slot: u64) -> Option<Vec<PlacedNote>> {
    let whole = checked(bytes)?;
    let mut rest = Cursor(whole.strip_prefix(NOTES)?);
    if rest.u64()? != slot {
        return None;
    }
    let mut notes = Vec::new();
    while !rest.0.is_empty() {
        let index = rest.u32()?;
        let place = rest.place()?;
        let length = rest.u16()?;
        let bytes = Bytes::copy_from_slice(rest.take(usize::from(length))?);
        let note = Note { index, bytes };
        notes.push(PlacedNote { place, note });
    }
    Some(notes)
}

/// The object with the manifest: what stands before it, it, and the sum.
pub(super) fn contents(slot: u64, places: &Places, manifest: Bytes) -> Result<Vec<Bytes>> {
    let mut head = CONTENTS.to_vec();
    head.extend_from_slice(&slot.to_be_bytes());
    let count = u32::try_from(places.len()).map_err(Error::internal)?;
    head.extend_from_slice(&count.to_be_bytes());
    for (index, place) in places {
        head.extend_from_slice(&index.to_be_bytes());
        head.extend_from_slice(&place.attempt.0);
        head.extend_from_slice(&place.length.to_be_bytes());
    }
    let mut sum = Context::new(&SHA256);
    sum.update(&head);
    sum.update(&manifest);
    let sum = Bytes::copy_from_slice(&sum.finish().as_ref()[..SUM]);
    Ok(vec![Bytes::from(head), manifest, sum])
}

/// A blob's segments, and its manifest; nothing where the object is not whole.
pub(super) fn read_contents(bytes: &Bytes) -> Option<(Places, Bytes)> {
    let whole = checked(bytes)?;
    let mut head = Cursor(whole.strip_prefix(CONTENTS)?);
    let (_slot, count) = (head.u64()?, head.u32()?);
    let mut places = Places::new();
    for _ in 0..count {
        let index = head.u32()?;
        places.insert(index, head.place()?);
    }
    let manifest = whole.len() - head.0.len()..whole.len();
    Some((places, bytes.slice(manifest)))
}

fn add_sum(out: &mut Vec<u8>) {
    let sum = digest(&SHA256, out);
    out.extend_from_slice(&sum.as_ref()[..SUM]);
}

/// The bytes without the sum at their end, where that is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (whole, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    (digest(&SHA256, whole).as_ref()[..SUM] == *sum).then_some(whole)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn place(&mut self) -> Option<Place> {
        Some(Place {
            attempt: AttemptId(self.take(16)?.try_into().ok()?),
            length: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> Place {
        Place {
            attempt: AttemptId([number; 16]),
            length: u32::from(number) << 20,
        }
    }

    fn placed(index: u32, number: u8, bytes: &'static [u8]) -> PlacedNote {
        let bytes = Bytes::from_static(bytes);
        PlacedNote {
            place: place(number),
            note: Note { index, bytes },
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = [placed(7, 1, b"seven"), placed(0, 2, b"")];
        let bytes = notes(4096, written.iter()).unwrap();
        assert_eq!(read_notes(&bytes, 4096).as_deref(), Some(&written[..]));
        assert_eq!(read_notes(&bytes, 8192), None);

        let places = Places::from([(0, place(3)), (9, place(4))]);
        let manifest = Bytes::from_static(b"manifest");
        let whole = contents(4096, &places, manifest.clone()).unwrap().concat();
        assert_eq!(read_contents(&Bytes::from(whole)), Some((places, manifest)));

        let id = AttemptId([5; 16]);
        let told = read_pointer(&pointer(id, "manifest.0f"));
        assert_eq!(told, Some((id, "manifest.0f".to_owned())));
        assert_eq!(read_marker(&marker(4096)), Some(4096));
        assert_eq!(read_marker(&marker_over()), None);
    }

    #[test]
    fn what_is_cut_or_has_a_flipped_bit_is_not_taken() {
        let written = notes(4096, [placed(7, 1, b"seven")].iter()).unwrap();
        let manifest = Bytes::from_static(b"manifest");
        let head = contents(4096, &Places::from([(1, place(3))]), manifest).unwrap();
        let head = Bytes::from(head.concat());
        for cut in 0..written.len() {
            assert_eq!(read_notes(&written.slice(..cut), 4096), None, "{cut}");
        }
        for cut in 0..head.len() {
            assert_eq!(read_contents(&head.slice(..cut)), None, "{cut}");
        }
        for bit in 0..written.len() * 8 {
            let mut bytes = written.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_notes(&Bytes::from(bytes), 4096), None, "{bit}");
        }
        for bit in 0..head.len() * 8 {
            let mut bytes = head.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_contents(&Bytes::from(bytes)), None, "{bit}");
        }
        for text in ["", "calotype blob 2\n", "calotype blob 1\nx/manifest.0\n"] {
            assert_eq!(read_pointer(text.as_bytes()), None, "{text:?}");
        }
        let up = format!("{POINTER}{}/../x\n", AttemptId([5; 16]));
        assert_eq!(read_pointer(up.as_bytes()), None);
    }

    #[test]
    fn a_note_that_is_too_long_is_refused() {
        let long: &'static [u8] = &[0; NOTE_LIMIT + 1];
        assert!(notes(4096, [placed(0, 1, long)].iter()).is_err());
    }
}
