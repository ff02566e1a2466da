//! A committed blob in an object store, open.
//!
//! Who reads a segment from one end to the other gets it in chunks, the next ones asked for before they are wanted: one at
//! first, more as long as it goes on. Who reads here and there gets what is asked for, and no more.
//!
//! What one pass is for ([`Use::OnePass`]) has chunks of its own: a verification must see what the store has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::{Error, Result};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::chunks::{CHUNK, Chunk, ChunkId, Chunks, Source};
use super::records::{Place, Places};
use super::{Found, S3Store};
use crate::store::{Buffer, Cache, Slot, Stored, Use};

/// The most chunks that a reader has ahead.
const FURTHEST: u32 = 4;

/// The memory that a segment takes while it is read.
pub(super) const MEMORY: u64 = (FURTHEST as u64 + 1) * CHUNK;

/// Segments of a blob that are read at once; those that were read longest ago are forgotten.
const SEGMENTS: usize = 32;

/// From this length on, what is read at a segment's beginning is believed to go on.
const LONG: usize = 256 << 10;

pub(super) struct StoredObjects {
    store: S3Store,
    blob: BlobId,
    /// The key of the manifest.
    key: String,
    manifest: Bytes,
    places: Places,
    purpose: Use,
    reading: Mutex<BTreeMap<u32, Reading>>,
}

/// How a segment is being read.
#[derive(Default)]
struct Reading {
    /// Where the last read ended.
    at: u64,
    /// Chunks to have ahead.
    ahead: u32,
    /// What is had, or on its way, by number.
    chunks: BTreeMap<u32, Held>,
    /// Counts reads of the blob.
    last: u64,
}

struct Held {
    chunk: Arc<Chunk>,
    /// What gets it, where it was asked for ahead. It ends with this.
    _getting: Option<Getting>,
}

/// With the right to be ahead.
struct Getting(
    JoinHandle<()>,
    #[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit,
);

impl Drop for Getting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl StoredObjects {
    pub(super) fn new(store: S3Store, blob: BlobId, found: Found, purpose: Use) -> Self {
        Self {
            store,
            blob,
            key: found.key,
            manifest: found.manifest,
            places: found.places,
            purpose,
            reading: Mutex::default(),
        }
    }

    /// One pass neither fills the cache nor trusts it.
    fn cache(&self) -> Option<&Cache> {
        let cache = self.store.chunks().cache.as_ref();
        cache.filter(|_| self.purpose == Use::Shared)
    }

    fn source(&self, index: u32, place: Place) -> Source {
        Source {
            key: self.store.names().segment(self.blob, place.attempt, index),
            size: u64::from(place.length),
        }
    }

    /// The chunks of a range where it is read in chunks; nothing where it is to be read as it is.
    fn chunks(
        &self,
        slot: Slot,
        place: Place,
        offset: u64,
        length: u64,
    ) -> Option<Vec<Arc<Chunk>>> {
        let mut all = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let now = all
            .values()
            .map(|reading| reading.last)
            .max()
            .unwrap_or_default()
            + 1;
        if all.len() >= SEGMENTS && !all.contains_key(&slot.index) {
            let oldest = all.iter().min_by_key(|(_, reading)| reading.last);
            let oldest = oldest.map(|(index, _)| *index);
            oldest.map(|oldest| all.remove(&oldest));
        }
        let reading = all.entry(slot.index).or_default();
        let begins = offset == 0 && (reading.last == 0 && length as usize >= LONG);
        let goes_on = offset != 0 && offset == reading.at || begins;
        (reading.at, reading.last) = (offset + length, now);
        let id = |number| ChunkId {
            attempt: place.attempt,
            index: slot.index,
            number,
        };
        let number = |at: u64| u32::try_from(at / CHUNK).unwrap_or(u32::MAX);
        let (first, last) = (number(offset), number(offset + length - 1));
        let shared = self.purpose == Use::Shared;
        let pool = self.store.chunks();
        let had = (first..=last).all(|number| {
            reading.chunks.contains_key(&number) || shared && pool.is_known(id(number))
        });
        if !goes_on && !had {
            (reading.ahead, reading.chunks) = (0, BTreeMap::new());
            // Only where there is a cache is what is read here and there worth a whole chunk.
            self.cache()?;
        }
        let chunk = |number| match shared {
            true => pool.shared(id(number)),
            false => Chunks::private(id(number)),
        };
        reading.chunks.retain(|number, _| *number >= first);
        for number in first..=last {
            reading.chunks.entry(number).or_insert_with(|| {
                // Each chunk that is reached lets one more be asked for.
                if goes_on {
                    reading.ahead = (reading.ahead + 1).min(FURTHEST);
                }
                Held {
                    chunk: chunk(number),
                    _getting: None,
                }
            });
        }
        let wanted = (first..=last).filter_map(|number| {
            let held = reading.chunks.get(&number)?;
            Some(Arc::clone(&held.chunk))
        });
        let wanted = wanted.collect();
        let end = number(u64::from(place.length).saturating_sub(1));
        for next in last + 1..=end.min(last + reading.ahead) {
            if reading.chunks.contains_key(&next) {
                continue;
            }
            // Where everybody is ahead already, nobody is any further.
            let Ok(permit) = Arc::clone(&pool.ahead).try_acquire_owned() else {
                break;
            };
            let held = self.ask_ahead(chunk(next), self.source(slot.index, place), permit);
            reading.chunks.insert(next, held);
            reading.ahead = (reading.ahead + 1).min(FURTHEST);
        }
        // Who resumes or verifies reads segments by themselves; everybody else goes on to the next one.
        let ends = shared && goes_on && last + reading.ahead > end;
        let next = self.places.range(slot.index.saturating_add(1)..).next();
        if ends && let Some((index, place)) = next.filter(|(index, _)| !all.contains_key(index)) {
            self.begin_ahead(*index, *place, &mut all);
        }
        Some(wanted)
    }

    /// Asks for the beginning of a segment that somebody will come to.
    fn begin_ahead(&self, index: u32, place: Place, all: &mut BTreeMap<u32, Reading>) {
        let pool = self.store.chunks();
        let Ok(permit) = Arc::clone(&pool.ahead).try_acquire_owned() else {
            return;
        };
        let id = ChunkId {
            attempt: place.attempt,
            index,
            number: 0,
        };
        let held = self.ask_ahead(pool.shared(id), self.source(index, place), permit);
        let reading = Reading {
            ahead: FURTHEST,
            chunks: BTreeMap::from([(0, held)]),
            ..Reading::default()
        };
        all.insert(index, reading);
    }

    fn ask_ahead(&self, chunk: Arc<Chunk>, source: Source, permit: OwnedSemaphorePermit) -> Held {
        let (store, getting) = (self.store.clone(), Arc::clone(&chunk));
        let shared = self.purpose == Use::Shared;
        let getting = tokio::spawn(async move {
            let cache = store.chunks().cache.as_ref().filter(|_| shared);
            // Whoever reads it meets the error.
            let _ = getting.bytes(store.bucket(), &source, cache).await;
        });
        Held {
            chunk,
            _getting: Some(Getting(getting, permit)),
        }
    }

    /// Lets go of what is had of a segment.
    fn let_go(&self, index: u32) {
        let mut all = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&index);
    }

    /// Why a segment is not there.
    async fn gone(&self) -> Error {
        match self.store.bucket().size(&self.key).await {
            Ok(Some(_)) => Error::damaged("a segment is gone"),
            // So is the blob; or another attempt's manifest took the place of this one's.
            Ok(None) => Error::unavailable("the blob was removed while it was read"),
            Err(error) => error,
        }
    }

    fn place(&self, slot: Slot, offset: u64, length: usize) -> Result<Place> {
        let end = offset.checked_add(length as u64);
        let place = self.places.get(&slot.index).copied();
        place
            .filter(|place| end.is_some_and(|end| end <= u64::from(place.length)))
            .ok_or_else(|| Error::damaged("stored bytes are missing"))
    }

    async fn read_as_it_is(
        &self,
        slot: Slot,
        place: Place,
        offset: u64,
        mut buffer: Buffer,
        length: usize,
    ) -> Result<Buffer> {
        let source = self.source(slot.index, place);
        let range = offset..offset + length as u64;
        let bytes = self
            .store
            .bucket()
            .read(&source.key, range, source.size)
            .await?;
        let Some(bytes) = bytes else {
            return Err(self.gone().await);
        };
        buffer.room(length).copy_from_slice(&bytes);
        Ok(buffer)
    }
}

#[async_trait::async_trait]
impl Stored for StoredObjects {
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
        let place = self.place(slot, offset, length)?;
        if length == 0 {
            buffer.room(0);
            return Ok(buffer);
        }
        let Some(chunks) = self.chunks(slot, place, offset, length as u64) else {
            return self
                .read_as_it_is(slot, place, offset, buffer, length)
                .await;
        };
        let source = self.source(slot.index, place);
        let mut room = buffer.room(length);
        let mut at = offset;
        for chunk in chunks {
            let bytes = chunk.bytes(self.store.bucket(), &source, self.cache());
            let Some(bytes) = bytes.await? else {
                return Err(self.gone().await);
            };
            if self.purpose == Use::Shared {
                self.store.chunks().keep(&chunk);
            }
            let from = usize::try_from(at % CHUNK).map_err(Error::internal)?;
            let part = bytes.get(from..).unwrap_or_default();
            let part = &part[..part.len().min(room.len())];
            let (now, later) = room.split_at_mut(part.len());
            now.copy_from_slice(part);
            (room, at) = (later, at + part.len() as u64);
        }
        if at == u64::from(place.length) {
            // Nobody goes on from here.
            self.let_go(slot.index);
        }
        if !room.is_empty() {
            return Err(Error::internal("a chunk is shorter than its segment says"));
        }
        Ok(buffer)
    }

    async fn read_again(
        &self,
        slot: Slot,
        offset: u64,
        length: usize,
        buffer: Buffer,
    ) -> Result<Option<Buffer>> {
        let place = self.place(slot, offset, length)?;
        let last = (offset + length as u64).saturating_sub(1) / CHUNK;
        for number in offset / CHUNK..=last {
            self.store.chunks().forget(ChunkId {
                attempt: place.attempt,
                index: slot.index,
                number: u32::try_from(number).map_err(Error::internal)?,
            });
        }
        self.let_go(slot.index);
        let read = self.read_as_it_is(slot, place, offset, buffer, length);
        read.await.map(Some)
    }
}
