//! [`SealedBlobs`]: the domain's `Blobs` port over a store, a key service, a clock and a source of
//! randomness.
//!
//! # Guarantees
//! What was written is given back bit by bit, or not at all: any other bytes in the store are an error of
//! kind Damaged. The store's whole content tells no plaintext but its length and where it is zeros.
//!
//! # What it does not guarantee
//! That a blob is the newest of its id: a whole old blob, put back with its own manifest, is authentic.
//! Ids are never used twice, and the catalog knows each one's digests.
//!
//! # Crash consistency
//! See [`crate::store`].

use std::sync::Arc;

use calotype_core::id::BlobId;
use calotype_core::ports::{
    BlobCheck, BlobFacts, BlobReader, Blobs, ByteStream, Clock, DataKey, Entropy, KeyService,
    WriteOptions,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use tokio::task::spawn_blocking;

use crate::key_cache::KeyCache;
use crate::manifest::Manifest;
use crate::read::{self, OpenBlob, Reader};
use crate::seal::{BlobKeys, SegmentSize};
use crate::store::BlobStore;
use crate::write::{self, Plan};

/// How blobs are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealOptions {
    /// The plaintext size of the segments of new blobs.
    pub segment: SegmentSize,
    /// Pieces of 1 MiB in each queue of a write, at least one. A write holds about three times as many
    /// in all.
    pub queue: usize,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self {
            segment: SegmentSize::DEFAULT,
            queue: 4,
        }
    }
}

/// Sealed blobs in a store.
pub struct SealedBlobs {
    store: Arc<dyn BlobStore>,
    key_service: Arc<dyn KeyService>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    options: SealOptions,
    unwrapped: KeyCache,
}

impl SealedBlobs {
    /// Sealed blobs in `store`.
    pub fn new(
        store: Arc<dyn BlobStore>,
        key_service: Arc<dyn KeyService>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
        options: SealOptions,
    ) -> Self {
        Self {
            store,
            key_service,
            entropy,
            clock,
            options,
            unwrapped: KeyCache::default(),
        }
    }

    /// Opens a blob; nothing where there is none.
    async fn find(&self, blob: BlobId) -> Result<Option<Arc<OpenBlob>>> {
        let Some(stored) = self.store.open(blob).await? else {
            return Ok(None);
        };
        let bytes = stored.manifest().clone();
        let front = Manifest::front(&bytes, blob).map_err(Error::damaged)?;
        let now = self.clock.now();
        let cached = self.unwrapped.get(blob, &front.wrapped, now);
        let fresh = cached.is_none();
        let key = match cached {
            Some(key) => key,
            None => self.key_service.unwrap(blob, &front.wrapped).await?,
        };
        let wrapped = front.wrapped.clone();
        let keys = BlobKeys::derive(&key)?;
        // A large blob's manifest has megabytes to verify.
        let opened = spawn_blocking(move || read::open_blob(&bytes, blob, front, keys, stored))
            .await
            .map_err(Error::internal)??;
        if fresh {
            self.unwrapped.put(blob, wrapped, key, now);
        }
        Ok(Some(opened))
    }

    async fn verify(&self, blob: BlobId, deep: bool) -> Result<BlobCheck> {
        let Some(opened) = self.find(blob).await? else {
            return Ok(BlobCheck::Missing);
        };
        read::verify(&opened, deep).await?;
        Ok(BlobCheck::Whole(opened.facts.clone()))
    }
}

#[async_trait::async_trait]
impl Blobs for SealedBlobs {
    async fn write(
        &self,
        blob: BlobId,
        source: ByteStream,
        options: WriteOptions,
    ) -> Result<BlobFacts> {
        let key = DataKey::random(self.entropy.as_ref());
        let plan = Plan {
            blob,
            keys: Arc::new(BlobKeys::derive(&key)?),
            wrapped: self.key_service.wrap(blob, &key).await?,
            size: self.options.segment,
            depth: self.options.queue.max(1),
        };
        let mut staged = self.store.stage(blob, plan.size.slot()).await?;
        let written = write::write(plan, source, &options, staged.as_mut()).await;
        if written.is_err()
            && let Err(error) = staged.abandon().await
        {
            // The first error is the caller's; what stays is named by `list_staged`.
            tracing::warn!(blob.id = %blob, error = %error.chain(), "staged bytes stay behind");
        }
        written
    }

    async fn open(&self, blob: BlobId) -> Result<Arc<dyn BlobReader>> {
        match self.find(blob).await? {
            Some(opened) => Ok(Arc::new(Reader(opened))),
            None => Err(Error::damaged(format!("there is no blob {blob}"))),
        }
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        self.unwrapped.forget(blob);
        self.store.delete(blob).await
    }

    async fn discard(&self, blob: BlobId) -> Result<()> {
        self.store.discard(blob).await
    }

    async fn check(&self, blob: BlobId, deep: bool) -> Result<BlobCheck> {
        match self.verify(blob, deep).await {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                Ok(BlobCheck::Damaged(error.chain()))
            }
            other => other,
        }
    }

    async fn list(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        self.store.list().await
    }

    async fn list_staged(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        self.store.list_staged().await
    }

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        self.store.free_space().await
    }
}
