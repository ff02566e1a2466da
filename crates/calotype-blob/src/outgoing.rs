//! Sealed pages on their way to the store, in memory that a device can write from.
//!
//! Pages are sealed where they are written from: nothing is copied in between but what is left of a block.

use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use crate::seal::SEALED_PAGE;
use crate::store::{BLOCK, Buffer};

/// The most bytes of one write: as many blocks as a virtual disk takes in one request, or in two full ones.
/// Wherever in memory they lie, a request has an entry for each, and 254 or 126 at most (virtio's `seg_max` for rings
/// of 256 and 128); one of 1 MiB is two, and the second of them is small.
const RUN: usize = 248 * BLOCK;

/// The sealed pages of a segment, cut into runs of whole blocks.
pub(crate) struct Outgoing {
    buffer: Buffer,
    /// How much of the buffer is filled.
    filled: usize,
    /// Buffers to use again: fresh memory costs more than sealing into it.
    spares: Receiver<Buffer>,
    back: SyncSender<Buffer>,
}

impl Outgoing {
    /// Without memory yet. Of what the store has let go of it keeps so many buffers.
    pub(crate) fn new(spares: usize) -> Self {
        let (back, spares) = sync_channel(spares);
        Self {
            buffer: Buffer::default(),
            filled: 0,
            spares,
            back,
        }
    }

    /// Room for a page, which holds anything.
    pub(crate) fn page(&mut self) -> &mut [u8] {
        if self.buffer.bytes().is_empty() {
            self.buffer = self.empty();
        }
        &mut self.buffer.bytes_mut()[self.filled..self.filled + SEALED_PAGE]
    }

    /// Adds the page that was sealed into the room for it and takes so many bytes. The blocks that are whole, once
    /// another page has no room.
    pub(crate) fn add(&mut self, length: usize) -> Option<Bytes> {
        self.filled += length;
        let full = self.filled + SEALED_PAGE > RUN;
        full.then(|| self.cut(self.filled - self.filled % BLOCK))
    }

    /// What is left at the end of the segment.
    pub(crate) fn end(&mut self) -> Option<Bytes> {
        (self.filled > 0).then(|| self.cut(self.filled))
    }

    fn cut(&mut self, length: usize) -> Bytes {
        let full = mem::take(&mut self.buffer);
        let rest = &full.bytes()[length..self.filled];
        self.filled = rest.len();
        if !rest.is_empty() {
            self.buffer = self.empty();
            self.buffer.bytes_mut()[..rest.len()].copy_from_slice(rest);
        }
        Bytes::from_owner(Run {
            buffer: full,
            length,
            back: self.back.clone(),
        })
    }

    fn empty(&self) -> Buffer {
        let mut buffer = self.spares.try_recv().unwrap_or_default();
        buffer.room(RUN);
        buffer
    }
}

/// A buffer whose first bytes are on their way. It comes back when they are dropped.
struct Run {
    buffer: Buffer,
    length: usize,
    back: SyncSender<Buffer>,
}

impl AsRef<[u8]> for Run {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.bytes()[..self.length]
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // No room for it, and nobody there any more, are no matter.
        let _ = self.back.try_send(mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds pages of these lengths, and gives what came out and all that went in.
    fn pages(outgoing: &mut Outgoing, lengths: &[usize]) -> (Vec<Bytes>, Vec<u8>) {
        let (mut runs, mut all) = (Vec::new(), Vec::new());
        for (number, length) in lengths.iter().enumerate() {
            let page: Vec<u8> = (0..*length).map(|at| (at + 7 * number) as u8).collect();
            outgoing.page()[..*length].copy_from_slice(&page);
            all.extend_from_slice(&page);
            runs.extend(outgoing.add(*length));
        }
        runs.extend(outgoing.end());
        (runs, all)
    }

    #[test]
    fn what_goes_in_comes_out_in_whole_blocks_that_a_device_can_take() {
        for count in [0, 1, 14, 15, 16, 31, 150] {
            let mut lengths = vec![SEALED_PAGE; count];
            lengths.push(1000);
            let (runs, all) = pages(&mut Outgoing::new(2), &lengths);
            assert_eq!(runs.concat(), all, "{count} pages");
            for (number, run) in runs.iter().enumerate() {
                assert!(run.as_ptr().addr().is_multiple_of(BLOCK));
                assert!(run.len() <= RUN);
                let last = number + 1 == runs.len();
                assert!(last || run.len().is_multiple_of(BLOCK));
            }
        }
    }

    #[test]
    fn a_segment_that_is_begun_after_another_has_nothing_of_it() {
        let mut outgoing = Outgoing::new(2);
        let (runs, _) = pages(&mut outgoing, &[SEALED_PAGE, 33]);
        drop(runs);
        let (runs, all) = pages(&mut outgoing, &[40; 3]);
        assert_eq!(runs.concat(), all);
        assert_eq!(outgoing.end(), None);
    }

    #[test]
    fn memory_that_the_store_lets_go_of_is_used_again() {
        let mut outgoing = Outgoing::new(1);
        let (runs, _) = pages(&mut outgoing, &[100]);
        let before = runs[0].as_ptr();
        drop(runs);
        let (runs, _) = pages(&mut outgoing, &[100]);
        assert_eq!(runs[0].as_ptr(), before);
    }
}
