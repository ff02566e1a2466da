//! Memory for keys that are kept for a while: locked, so that it is never swapped out, and left out of core dumps, where
//! the system allows that.
//!
//! # Guarantees
//! A key that is dropped is erased. The memory's size is fixed when the vault is made. What comes out of it for a use is
//! [`KeyBits`], which are erased after it.
//!
//! # What it does not guarantee
//! That a key is nowhere else: a cipher that is in use has its own copy, which it erases when it is dropped.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize as _;

/// Bytes of a key.
const KEY: usize = 32;

/// How deep a stack is erased, in bytes.
const STACK: usize = 8192;

/// The 256 bits of a key, for as long as a use takes. Erased when dropped. They have one place on the heap: what moves is a
/// pointer, and no copies stay behind.
#[derive(Clone)]
pub struct KeyBits(Box<[u8; KEY]>);

impl KeyBits {
    /// Bits that `write` writes.
    pub fn written(write: impl FnOnce(&mut [u8; KEY])) -> Self {
        let mut bits = Self(Box::new([0; KEY]));
        write(&mut bits.0);
        bits
    }

    /// A copy of these; none where they are not as many as a key has.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == KEY).then(|| Self::written(|bits| bits.copy_from_slice(bytes)))
    }
}

impl Deref for KeyBits {
    type Target = [u8; KEY];

    fn deref(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl Drop for KeyBits {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for KeyBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBits(..)")
    }
}

/// Runs what has key bits in its variables, and erases the part of the stack that it had. A value that moves leaves a copy
/// behind, which nobody else erases: what comes of the bits is to be on the heap.
pub fn on_erased_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = deeper(work);
    erase_stack();
    result
}

#[inline(never)]
fn deeper<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn erase_stack() {
    let mut words = [0_u64; STACK / size_of::<u64>()];
    words.zeroize();
}

/// A fixed number of places for 256-bit keys.
#[derive(Clone)]
pub struct Vault(Arc<Mutex<Places>>);

struct Places {
    memory: Memory,
    free: Vec<usize>,
    locked: bool,
}

enum Memory {
    Mapped(MmapMut),
    /// Where the system gives no mapping: then a vault is no more than a table.
    Heap(Vec<u8>),
}

impl Places {
    fn bytes(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Mapped(map) => map,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl Vault {
    /// A vault with so many places.
    pub fn new(places: usize) -> Self {
        let length = places.max(1) * KEY;
        let (memory, locked) = match MmapMut::map_anon(length) {
            Ok(map) => {
                // An unlocked vault is better than none; which it is can be asked.
                let locked = map.lock().is_ok();
                let _ = map.advise(Advice::DontDump);
                (Memory::Mapped(map), locked)
            }
            Err(_) => (Memory::Heap(vec![0; length]), false),
        };
        Self(Arc::new(Mutex::new(Places {
            memory,
            free: (0..places).rev().collect(),
            locked,
        })))
    }

    /// Whether the system has locked the memory.
    pub fn is_locked(&self) -> bool {
        self.places().locked
    }

    /// Keeps a key; nothing where the vault is full.
    pub fn keep(&self, key: &[u8; KEY]) -> Option<Kept> {
        let mut places = self.places();
        let place = places.free.pop()?;
        places.bytes()[range(place)].copy_from_slice(key);
        drop(places);
        Some(Kept {
            vault: self.clone(),
            place,
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(..)")
    }
}

/// A key in a vault. Erased when dropped.
#[derive(Debug)]
pub struct Kept {
    vault: Vault,
    place: usize,
}

impl Kept {
    /// The key.
    pub fn key(&self) -> KeyBits {
        let mut places = self.vault.places();
        let place = &places.bytes()[range(self.place)];
        KeyBits::written(|bits| bits.copy_from_slice(place))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut places = self.vault.places();
        places.bytes()[range(self.place)].zeroize();
        places.free.push(self.place);
    }
}

const fn range(place: usize) -> Range<usize> {
    place * KEY..(place + 1) * KEY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_until_it_is_dropped_and_then_its_place_is_erased() {
        let vault = Vault::new(2);
        let first = vault.keep(&[1; KEY]).unwrap();
        let second = vault.keep(&[2; KEY]).unwrap();
        assert!(vault.keep(&[3; KEY]).is_none(), "it is full");
        assert_eq!(*first.key(), [1; KEY]);
        drop(first);
        assert_eq!(vault.places().bytes()[..KEY], [0; KEY]);
        let third = vault.keep(&[3; KEY]).unwrap();
        assert_eq!(*third.key(), [3; KEY]);
        assert_eq!(*second.key(), [2; KEY]);
        drop((second, third));
        assert!(vault.places().bytes().iter().all(|byte| *byte == 0));
    }
}
