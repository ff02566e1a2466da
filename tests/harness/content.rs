//! Bytes to upload: repeatable from a seed, at any length, without being held in memory.

use std::io::{self, Read};

use md5::Md5;
use sha2::{Digest, Sha512};

/// A stream of bytes that is the same for the same seed and length.
#[derive(Debug, Clone)]
pub struct Content {
    state: u64,
    left: u64,
    word: [u8; 8],
    used: usize,
}

impl Content {
    /// `length` bytes of the stream that `seed` names.
    pub fn new(seed: u64, length: u64) -> Self {
        Self {
            state: seed,
            left: length,
            word: [0; 8],
            used: 8,
        }
    }

    /// All of it.
    pub fn bytes(seed: u64, length: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Self::new(seed, length)
            .read_to_end(&mut bytes)
            .expect("content never fails");
        bytes
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (buffer, _) = buffer.split_at_mut(length);
        let begun = if self.used == 8 {
            0
        } else {
            (8 - self.used).min(length)
        };
        let (rest, whole) = buffer.split_at_mut(begun);
        rest.copy_from_slice(&self.word[self.used..self.used + begun]);
        self.used += begun;
        for part in whole.chunks_mut(8) {
            self.word = next(&mut self.state).to_le_bytes();
            self.used = part.len();
            part.copy_from_slice(&self.word[..self.used]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// The next number of the sequence that `state` is in (SplitMix64, Steele et al. 2014).
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The length and the digests of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// How many bytes there were.
    pub length: u64,
    /// MD5, hexadecimal.
    pub md5: String,
    /// SHA-512, hexadecimal.
    pub sha512: String,
}

impl Digests {
    /// Reads a stream to its end.
    ///
    /// # Errors
    /// Where the stream breaks off.
    pub fn try_of(mut stream: impl Read) -> io::Result<Self> {
        let (mut md5, mut sha512, mut length) = (Md5::new(), Sha512::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            md5.update(&buffer[..read]);
            sha512.update(&buffer[..read]);
            length += read as u64;
        }
        Ok(Self {
            length,
            md5: hex::encode(md5.finalize()),
            sha512: hex::encode(sha512.finalize()),
        })
    }

    /// Reads a stream to its end.
    pub fn of(stream: impl Read) -> Self {
        Self::try_of(stream).expect("the stream reads to its end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_however_it_is_read() {
        let whole = Content::bytes(7, 1000);
        for step in [1, 3, 8, 13, 999] {
            let mut content = Content::new(7, 1000);
            let mut read = Vec::new();
            let mut part = vec![0; step];
            loop {
                let length = content.read(&mut part).expect("content never fails");
                if length == 0 {
                    break;
                }
                read.extend_from_slice(&part[..length]);
            }
            assert!(read == whole, "in steps of {step}");
        }
        assert!(Content::bytes(8, 1000) != whole);
    }
}
