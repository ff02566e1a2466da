//! Pieces of segments on their way from the store.
//!
//! A chunk is 2 MiB of a segment's stored bytes, sealed as they are. However many readers want it at once, it is asked for
//! once; and it is kept for as long as one of them holds it, and a little longer.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use calotype_core::{Error, Result};
use calotype_s3::Bucket;
use tokio::sync::{OnceCell, Semaphore};

use super::names::AttemptId;
use crate::store::Cache;

/// Bytes of a chunk.
pub(super) const CHUNK: u64 = 2 << 20;

/// Chunks that are kept after their last reader.
const KEPT: usize = 16;

/// Chunks that all readers together have ahead of what they are asked for.
const AHEAD: usize = 96;

/// Which chunk it is. No two of different bytes have the same one: an attempt writes a segment once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ChunkId {
    pub(super) attempt: AttemptId,
    pub(super) index: u32,
    pub(super) number: u32,
}

impl fmt::Display for ChunkId {
    /// Its name in a cache.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}.{:08x}", self.attempt, self.index, self.number)
    }
}

/// Where a chunk's segment is.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) key: String,
    pub(super) size: u64,
}

/// A chunk: asked for by the first who needs its bytes.
#[derive(Debug)]
pub(super) struct Chunk {
    id: ChunkId,
    bytes: OnceCell<Bytes>,
}

/// The chunks of this process.
pub(super) struct Chunks {
    /// What is kept on this machine's disk.
    pub(super) cache: Option<Cache>,
    shared: Mutex<Shared>,
    pub(super) ahead: Arc<Semaphore>,
}

#[derive(Default)]
struct Shared {
    known: HashMap<ChunkId, Weak<Chunk>>,
    kept: VecDeque<Arc<Chunk>>,
}

impl Chunks {
    pub(super) fn new(cache: Option<Cache>) -> Self {
        Self {
            cache,
            shared: Mutex::default(),
            ahead: Arc::new(Semaphore::new(AHEAD)),
        }
    }

    /// A chunk that all readers share.
    pub(super) fn shared(&self, id: ChunkId) -> Arc<Chunk> {
        let mut shared = self.locked();
        if let Some(chunk) = shared.known.get(&id).and_then(Weak::upgrade) {
            return chunk;
        }
        let chunk = Self::private(id);
        if shared.known.len() > 4 * AHEAD {
            shared.known.retain(|_, chunk| chunk.strong_count() > 0);
        }
        shared.known.insert(id, Arc::downgrade(&chunk));
        chunk
    }

    /// A chunk for one reader, which asks the store itself.
    pub(super) fn private(id: ChunkId) -> Arc<Chunk> {
        Arc::new(Chunk {
            id,
            bytes: OnceCell::new(),
        })
    }

    /// Whether somebody has it, or is getting it.
    pub(super) fn is_known(&self, id: ChunkId) -> bool {
        let shared = self.locked();
        let known = shared.known.get(&id);
        known.is_some_and(|chunk| chunk.strong_count() > 0)
    }

    /// Keeps a chunk for a little longer.
    pub(super) fn keep(&self, chunk: &Arc<Chunk>) {
        let mut shared = self.locked();
        if shared.kept.iter().any(|kept| kept.id == chunk.id) {
            return;
        }
        shared.kept.push_back(Arc::clone(chunk));
        if shared.kept.len() > KEPT {
            shared.kept.pop_front();
        }
    }

    /// Forgets a chunk whose bytes turned out to be wrong. Who holds it may still read it.
    pub(super) fn forget(&self, id: ChunkId) {
        if let Some(cache) = &self.cache {
            cache.remove(&id.to_string());
        }
        let mut shared = self.locked();
        shared.known.remove(&id);
        shared.kept.retain(|chunk| chunk.id != id);
    }

    fn locked(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunk {
    /// Its bytes; asked for where nobody has yet. Nothing where the segment is gone.
    pub(super) async fn bytes(
        &self,
        bucket: &Bucket,
        source: &Source,
        cache: Option<&Cache>,
    ) -> Result<Option<Bytes>> {
        let start = u64::from(self.id.number) * CHUNK;
        let end = source.size.min(start + CHUNK);
        let read = self.bytes.get_or_try_init(|| async {
            if let Some(cache) = cache
                && let Ok(length) = usize::try_from(end - start)
                && let Some(bytes) = cache.get(&self.id.to_string(), length).await
            {
                return Ok(bytes);
            }
            match bucket.read(&source.key, start..end, source.size).await {
                Ok(Some(bytes)) => {
                    if let Some(cache) = cache {
                        cache.put(self.id.to_string(), bytes.clone());
                    }
                    Ok(bytes)
                }
                Ok(None) => Err(None),
                Err(error) => Err(Some(error)),
            }
        });
        match read.await {
            Ok(bytes) => Ok(Some(bytes.clone())),
            Err(None) => Ok(None),
            Err(Some::<Error>(error)) => Err(error),
        }
    }
}
