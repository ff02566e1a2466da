//! Blobs in memory. For tests, and for a service that is only tried out: nothing survives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::ports::Clock;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};

use super::{BlobStore, Slot, Staged, Stored};

type Segments = BTreeMap<u32, Vec<u8>>;

#[derive(Default)]
struct Shelf {
    committed: BTreeMap<BlobId, (Arc<StoredMemory>, Timestamp)>,
    staged: BTreeMap<(BlobId, u64), (Segments, Timestamp)>,
    attempts: u64,
}

/// A store in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shelf: Arc<Mutex<Shelf>>,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            shelf: Arc::default(),
            clock,
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl BlobStore for MemoryStore {
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Box<dyn Staged>> {
        let now = self.clock.now();
        let mut shelf = self.shelf();
        shelf.attempts += 1;
        let attempt = (blob, shelf.attempts);
        shelf.staged.insert(attempt, (BTreeMap::new(), now));
        Ok(Box::new(StagedMemory {
            store: self.clone(),
            attempt,
            slot,
            failed: false,
        }))
    }

    async fn open(&self, blob: BlobId) -> Result<Option<Arc<dyn Stored>>> {
        let stored = self.shelf().committed.get(&blob).cloned();
        Ok(stored.map(|(stored, _)| stored as Arc<dyn Stored>))
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        self.shelf().committed.remove(&blob);
        Ok(())
    }

    async fn discard(&self, blob: BlobId) -> Result<()> {
        self.shelf().staged.retain(|(owner, _), _| *owner != blob);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let shelf = self.shelf();
        let committed = shelf.committed.iter();
        Ok(committed.map(|(blob, (_, time))| (*blob, *time)).collect())
    }

    async fn list_staged(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let shelf = self.shelf();
        let mut latest = BTreeMap::new();
        for ((blob, _), (_, time)) in &shelf.staged {
            let last = latest.entry(*blob).or_insert(*time);
            *last = (*last).max(*time);
        }
        Ok(latest.into_iter().collect())
    }

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        Ok(None)
    }
}

struct StagedMemory {
    store: MemoryStore,
    attempt: (BlobId, u64),
    slot: u64,
    failed: bool,
}

fn discarded() -> Error {
    Error::new(ErrorKind::Conflict, "The write was discarded.")
}

impl StagedMemory {
    fn add(&self, index: u32, bytes: &[u8]) -> Result<()> {
        let now = self.store.clock.now();
        let mut shelf = self.store.shelf();
        let (segments, time) = shelf.staged.get_mut(&self.attempt).ok_or_else(discarded)?;
        let in_order = segments
            .last_key_value()
            .is_none_or(|(last, _)| *last <= index);
        let segment = segments.entry(index).or_default();
        if !in_order || (segment.len() + bytes.len()) as u64 > self.slot {
            return Err(Error::invalid("The bytes do not fit their segment."));
        }
        segment.extend_from_slice(bytes);
        *time = now;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Staged for StagedMemory {
    async fn append(&mut self, index: u32, bytes: Bytes) -> Result<()> {
        if self.failed {
            return Err(Error::internal("this attempt has failed before"));
        }
        let added = self.add(index, &bytes);
        self.failed = added.is_err();
        added
    }

    async fn finish_segment(&mut self, _index: u32) -> Result<()> {
        Ok(())
    }

    async fn commit(&mut self, manifest: Bytes) -> Result<()> {
        if self.failed {
            return Err(Error::internal("this attempt has failed before"));
        }
        self.failed = true;
        let now = self.store.clock.now();
        let mut shelf = self.store.shelf();
        if shelf.committed.contains_key(&self.attempt.0) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "The blob is there already.",
            ));
        }
        let (segments, _) = shelf.staged.remove(&self.attempt).ok_or_else(discarded)?;
        let stored = Arc::new(StoredMemory { manifest, segments });
        shelf.committed.insert(self.attempt.0, (stored, now));
        Ok(())
    }

    async fn abandon(&mut self) -> Result<()> {
        self.failed = true;
        self.store.shelf().staged.remove(&self.attempt);
        Ok(())
    }
}

struct StoredMemory {
    manifest: Bytes,
    segments: Segments,
}

#[async_trait::async_trait]
impl Stored for StoredMemory {
    fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    async fn read(&self, slot: Slot, offset: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
        let bytes = self
            .segments
            .get(&slot.index)
            .and_then(|segment| segment.get(usize::try_from(offset).ok()?..))
            .and_then(|rest| rest.get(..buffer.len()))
            .ok_or_else(|| Error::damaged("stored bytes are missing"))?;
        buffer.copy_from_slice(bytes);
        Ok(buffer)
    }
}
