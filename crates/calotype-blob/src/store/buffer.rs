//! Memory that devices can read into and write from.

use std::ops::Range;

/// What an unbuffered transfer's place, length and memory are multiples of. No file system asks for more.
pub(crate) const BLOCK: usize = 4096;

/// Bytes, in memory that is used again. The bytes may begin anywhere in it, so that a device can transfer whole
/// blocks around them.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    bytes: Range<usize>,
}

impl Buffer {
    /// Room for so many bytes, which hold anything.
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        self.blocks(0, length);
        self.bytes_mut()
    }

    /// Room for `length` bytes, the first `before` of the way into an aligned block; the room begins with that
    /// block and ends with the last one that they touch. They hold anything.
    pub(super) fn blocks(&mut self, before: usize, length: usize) -> &mut [u8] {
        let whole = (before + length).next_multiple_of(BLOCK);
        if self.memory.len() < whole + BLOCK {
            self.memory = vec![0; whole + BLOCK];
        }
        let lead = self.memory.as_ptr().addr().wrapping_neg() % BLOCK;
        self.bytes = lead + before..lead + before + length;
        &mut self.memory[lead..lead + whole]
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.bytes.clone()]
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.bytes.clone()]
    }
}
