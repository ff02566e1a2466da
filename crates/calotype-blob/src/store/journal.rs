//! The notes of an attempt, in a file beside its body.
//!
//! # Format (integers big-endian)
//! ```text
//! head   "CALONOTE" | version u16 | slot u64
//! note   index u32 | length u16 | bytes | the first 8 bytes of SHA-256 over all of these
//! ```
//!
//! # Crash consistency
//! Notes are appended and made durable after the segments that they are about. A note that a crash cut short ends
//! the journal: what follows it was never vouched for. The digest finds torn writes, not forgers: a note that lies
//! makes a manifest whose segment does not authenticate.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::{NOTE_LIMIT, Note};

const MAGIC: &[u8; 8] = b"CALONOTE";
const VERSION: u16 = 1;
const HEAD: usize = 18;
const SUM: usize = 8;

/// What a journal begins with.
pub(super) fn head(slot: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_be_bytes());
    head.extend_from_slice(&slot.to_be_bytes());
    head
}

/// Appends notes in the journal's form. Notes over the limit have no form.
pub(super) fn encode(notes: &[Note], out: &mut Vec<u8>) -> Result<(), super::Error> {
    for note in notes {
        let length = u16::try_from(note.bytes.len())
            .ok()
            .filter(|length| usize::from(*length) <= NOTE_LIMIT)
            .ok_or_else(|| super::Error::internal("a note is too long"))?;
        let from = out.len();
        out.extend_from_slice(&note.index.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&note.bytes);
        let sum = digest(&SHA256, &out[from..]);
        out.extend_from_slice(&sum.as_ref()[..SUM]);
    }
    Ok(())
}

/// The notes of a journal for slots of this size, by rising index, and the length of its part that is whole.
/// Nothing where it is not such a journal.
pub(super) fn decode(bytes: &Bytes, slot: u64) -> Option<(Vec<Note>, usize)> {
    if bytes.get(..HEAD)? != head(slot) {
        return None;
    }
    let mut notes = BTreeMap::new();
    let mut at = HEAD;
    while let Some((note, length)) = note_at(bytes, at) {
        notes.insert(note.index, note);
        at += length;
    }
    Some((notes.into_values().collect(), at))
}

fn note_at(bytes: &Bytes, at: usize) -> Option<(Note, usize)> {
    let index = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    let length = u16::from_be_bytes(bytes.get(at + 4..at + 6)?.try_into().ok()?);
    let end = at + 6 + usize::from(length);
    let sum = bytes.get(end..end + SUM)?;
    if digest(&SHA256, bytes.get(at..end)?).as_ref()[..SUM] != *sum {
        return None;
    }
    let note = Note {
        index,
        bytes: bytes.slice(at + 6..end),
    };
    Some((note, end + SUM - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(index: u32, bytes: &'static [u8]) -> Note {
        Note {
            index,
            bytes: Bytes::from_static(bytes),
        }
    }

    fn journal() -> (Vec<Note>, Vec<u8>) {
        let notes = vec![note(0, b"zero"), note(7, b""), note(9, &[9; 64])];
        let mut bytes = head(4096);
        encode(&notes, &mut bytes).unwrap();
        (notes, bytes)
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_gives_the_notes_before_the_cut() {
        let (notes, bytes) = journal();
        for cut in 0..=bytes.len() {
            let read = decode(&Bytes::copy_from_slice(&bytes[..cut]), 4096);
            assert_eq!(read.is_some(), cut >= HEAD, "{cut}");
            let Some((read, whole)) = read else { continue };
            assert!(notes.starts_with(&read) && whole <= cut, "{cut}");
            assert_eq!(read.len() == notes.len(), cut == bytes.len());
        }
    }

    #[test]
    fn a_bit_that_flipped_ends_the_journal_before_its_note() {
        let (notes, bytes) = journal();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some((read, _)) = decode(&Bytes::from(bytes), 4096) {
                assert!(
                    notes.starts_with(&read) && read.len() < notes.len(),
                    "{bit}"
                );
            }
        }
    }

    #[test]
    fn a_journal_for_other_slots_is_none_and_a_note_that_is_too_long_is_refused() {
        let (_, bytes) = journal();
        assert!(decode(&Bytes::from(bytes), 8192).is_none());
        let long = Note {
            index: 0,
            bytes: Bytes::from(vec![0; NOTE_LIMIT + 1]),
        };
        assert!(encode(&[long], &mut Vec::new()).is_err());
    }
}
