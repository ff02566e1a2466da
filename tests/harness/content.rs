//! Bytes to upload: repeatable from a seed, at any length, without being held in memory.
//!
//! Made by copying, which is as fast in a build that is not optimised: every 4 KiB are a piece of the same random bytes,
//! and begin with two words of their own, which no other block of any stream has.

use std::io::{self, Read};
use std::sync::OnceLock;

use md5::Md5;
use sha2::{Digest, Sha512};

/// Less than any unit that the service moves bytes in, so that no two of those are alike.
const BLOCK: usize = 4096;

/// Random bytes of which blocks are pieces.
const BASE: usize = 1 << 20;

/// A stream of bytes that is the same for the same seed and length.
#[derive(Debug, Clone)]
pub struct Content {
    seed: u64,
    at: u64,
    length: u64,
}

impl Content {
    /// `length` bytes of the stream that `seed` names.
    pub fn new(seed: u64, length: u64) -> Self {
        Self {
            seed,
            at: 0,
            length,
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

    /// The words that a block of the stream begins with.
    fn head(&self, block: u64) -> [u8; 16] {
        let mut state = self.seed ^ block.rotate_left(32);
        let low = u128::from(next(&mut state));
        (low << 64 | u128::from(next(&mut state))).to_le_bytes()
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let mut rest = &mut buffer[..length];
        while !rest.is_empty() {
            let (block, from) = (self.at / BLOCK as u64, self.at as usize % BLOCK);
            let (part, behind) = rest.split_at_mut(rest.len().min(BLOCK - from));
            let piece = (self.at % BASE as u64) as usize;
            part.copy_from_slice(&base()[piece..piece + part.len()]);
            let head = self.head(block);
            if let Some(head) = head.get(from..) {
                let count = head.len().min(part.len());
                part[..count].copy_from_slice(&head[..count]);
            }
            self.at += part.len() as u64;
            rest = behind;
        }
        Ok(length)
    }
}

fn base() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut state = 0;
        let words = std::iter::repeat_with(|| next(&mut state).to_le_bytes());
        words.take(BASE / 8).flatten().collect()
    })
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

/// Two streams must be of the same bytes. Cheaper than their digests, where nobody asks for those.
pub fn expect_same(mut stream: impl Read, mut wanted: impl Read) {
    let (mut came, mut expected) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let read = stream.read(&mut came).expect("the stream reads on");
        let part = &mut expected[..read.max(1)];
        let length = match read {
            0 => wanted.read(part).expect("the wanted stream reads on"),
            _ => wanted.read_exact(part).map_or(0, |()| read),
        };
        assert_eq!(read, length, "one of the streams ends at {at}");
        assert!(came[..read] == expected[..read], "other bytes from {at} on");
        if read == 0 {
            return;
        }
        at += read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_same_that_have_the_same_bytes_and_end_together() {
        let bytes = Content::bytes(7, 10_000);
        expect_same(Content::new(7, 10_000), bytes.as_slice());
        for (seed, length) in [(8, 10_000), (7, 9_999), (7, 10_001), (7, 0)] {
            let other = || expect_same(Content::new(seed, length), bytes.as_slice());
            std::panic::catch_unwind(other).expect_err("they are not the same");
        }
    }

    #[test]
    fn content_is_the_same_however_it_is_read() {
        let whole = Content::bytes(7, 10_000);
        for step in [1, 3, 8, 13, 999, 4096, 5000] {
            let mut content = Content::new(7, 10_000);
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
        assert!(Content::bytes(8, 10_000) != whole);
    }

    #[test]
    fn no_two_blocks_are_alike() {
        let all = [1, 2].map(|seed| Content::bytes(seed, 3 << 20)).concat();
        let blocks: std::collections::BTreeSet<&[u8]> = all.chunks(BLOCK).collect();
        assert_eq!(blocks.len(), all.len() / BLOCK);
    }
}
