//! Blobs in memory. For tests, and for a service that is only tried out: nothing survives the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::ports::Clock;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};

use super::{
    BlobStore, Buffer, Note, SegmentWriter, Slot, Staged, Stored, Use, check_label, failed_before,
    misplaced,
};

/// The stored bytes of the finished segments, as they came.
type Segments = BTreeMap<u32, Vec<Bytes>>;

#[derive(Default)]
struct Shelf {
    committed: BTreeMap<BlobId, (Arc<StoredMemory>, Timestamp)>,
    staged: BTreeMap<(BlobId, u64), Attempt>,
    attempts: u64,
    labels: BTreeMap<String, Bytes>,
}

/// An attempt's bytes.
struct Attempt {
    segments: Segments,
    notes: BTreeMap<u32, Note>,
    slot: u64,
    touched: Timestamp,
    /// Gone when whoever made the attempt is.
    alive: Weak<()>,
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
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let alive = Arc::new(());
        let mut shelf = self.shelf();
        shelf.attempts += 1;
        let key = (blob, shelf.attempts);
        let attempt = Attempt {
            segments: BTreeMap::new(),
            notes: BTreeMap::new(),
            slot,
            touched: self.clock.now(),
            alive: Arc::downgrade(&alive),
        };
        shelf.staged.insert(key, attempt);
        Ok(Arc::new(StagedMemory {
            store: self.clone(),
            key,
            slot,
            noted: Vec::new(),
            failed: Arc::default(),
            _alive: alive,
        }))
    }

    async fn resume(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let adopted = {
            let mut shelf = self.shelf();
            let of_the_dead = shelf.staged.iter_mut().filter(|((owner, _), attempt)| {
                *owner == blob && attempt.slot == slot && attempt.alive.strong_count() == 0
            });
            of_the_dead
                .max_by_key(|(_, attempt)| attempt.notes.len())
                .filter(|(_, attempt)| !attempt.notes.is_empty())
                .map(|(key, attempt)| {
                    let alive = Arc::new(());
                    attempt.alive = Arc::downgrade(&alive);
                    // What was not noted would not have outlived a process.
                    let notes = &attempt.notes;
                    attempt
                        .segments
                        .retain(|index, _| notes.contains_key(index));
                    (*key, alive, notes.values().cloned().collect())
                })
        };
        let Some((key, alive, noted)) = adopted else {
            return self.stage(blob, slot).await;
        };
        Ok(Arc::new(StagedMemory {
            store: self.clone(),
            key,
            slot,
            noted,
            failed: Arc::default(),
            _alive: alive,
        }))
    }

    async fn open(&self, blob: BlobId, _: Use) -> Result<Option<Arc<dyn Stored>>> {
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
        for ((blob, _), attempt) in &shelf.staged {
            let last = latest.entry(*blob).or_insert(attempt.touched);
            *last = (*last).max(attempt.touched);
        }
        Ok(latest.into_iter().collect())
    }

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        Ok(None)
    }

    async fn label(&self, name: &str) -> Result<Option<Bytes>> {
        check_label(name, 0)?;
        Ok(self.shelf().labels.get(name).cloned())
    }

    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()> {
        check_label(name, bytes.len())?;
        self.shelf().labels.insert(name.to_owned(), bytes);
        Ok(())
    }
}

struct StagedMemory {
    store: MemoryStore,
    key: (BlobId, u64),
    slot: u64,
    noted: Vec<Note>,
    failed: Arc<AtomicBool>,
    _alive: Arc<()>,
}

fn discarded() -> Error {
    Error::new(ErrorKind::Conflict, "The write was discarded.")
}

fn check(failed: &AtomicBool) -> Result<()> {
    if failed.load(Ordering::SeqCst) {
        return Err(failed_before());
    }
    Ok(())
}

#[async_trait::async_trait]
impl Staged for StagedMemory {
    fn noted(&self) -> &[Note] {
        &self.noted
    }

    fn segment(&self, index: u32) -> Result<Box<dyn SegmentWriter>> {
        check(&self.failed)?;
        Ok(Box::new(MemoryWriter {
            store: self.store.clone(),
            key: self.key,
            index,
            bytes: Vec::new(),
            room: self.slot,
            failed: Arc::clone(&self.failed),
        }))
    }

    async fn checkpoint(&self, notes: Vec<Note>) -> Result<()> {
        check(&self.failed)?;
        let mut shelf = self.store.shelf();
        let attempt = shelf.staged.get_mut(&self.key).ok_or_else(discarded)?;
        let notes = notes.into_iter().map(|note| (note.index, note));
        attempt.notes.extend(notes);
        Ok(())
    }

    async fn commit(&self, manifest: Bytes) -> Result<()> {
        check(&self.failed)?;
        self.failed.store(true, Ordering::SeqCst);
        let now = self.store.clock.now();
        let mut shelf = self.store.shelf();
        if shelf.committed.contains_key(&self.key.0) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "The blob is there already.",
            ));
        }
        let attempt = shelf.staged.remove(&self.key).ok_or_else(discarded)?;
        let stored = Arc::new(StoredMemory {
            manifest,
            segments: attempt.segments,
        });
        shelf.committed.insert(self.key.0, (stored, now));
        Ok(())
    }

    async fn abandon(&self) -> Result<()> {
        self.failed.store(true, Ordering::SeqCst);
        self.store.shelf().staged.remove(&self.key);
        Ok(())
    }
}

struct MemoryWriter {
    store: MemoryStore,
    key: (BlobId, u64),
    index: u32,
    bytes: Vec<Bytes>,
    room: u64,
    failed: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl SegmentWriter for MemoryWriter {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        check(&self.failed)?;
        let Some(room) = self.room.checked_sub(bytes.len() as u64) else {
            self.failed.store(true, Ordering::SeqCst);
            return Err(misplaced());
        };
        self.room = room;
        self.bytes.push(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        check(&self.failed)?;
        let now = self.store.clock.now();
        let mut shelf = self.store.shelf();
        let attempt = shelf.staged.get_mut(&self.key).ok_or_else(discarded)?;
        attempt.touched = now;
        attempt
            .segments
            .insert(self.index, std::mem::take(&mut self.bytes));
        Ok(())
    }
}

struct StoredMemory {
    manifest: Bytes,
    segments: Segments,
}

impl StoredMemory {
    /// Copies stored bytes; false where there are fewer.
    fn copy(&self, index: u32, offset: u64, mut out: &mut [u8]) -> bool {
        let Ok(mut skip) = usize::try_from(offset) else {
            return false;
        };
        for part in self.segments.get(&index).into_iter().flatten() {
            let from = skip.min(part.len());
            skip -= from;
            let length = out.len().min(part.len() - from);
            let (now, later) = std::mem::take(&mut out).split_at_mut(length);
            now.copy_from_slice(&part[from..from + length]);
            out = later;
        }
        out.is_empty()
    }
}

#[async_trait::async_trait]
impl Stored for StoredMemory {
    fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    async fn read(
        &self,
        slot: Slot,
        offset: u64,
        length: usize,
        mut buffer: Buffer,
    ) -> Result<Buffer> {
        if !self.copy(slot.index, offset, buffer.room(length)) {
            return Err(Error::damaged("stored bytes are missing"));
        }
        Ok(buffer)
    }
}
