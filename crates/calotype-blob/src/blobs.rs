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

use bytes::Bytes;
use calotype_core::id::{BlobId, StoreName};
use calotype_core::keys::{KeyFault, KeyResult, KeyRole, MasterKey};
use calotype_core::ports::{
    BlobCheck, BlobFacts, BlobReader, Blobs, ByteStream, Clock, CopyOrder, Depth, Entropy,
    KeyService, Place, ResealOrder, WrappedKey, WriteOptions,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use tokio::task::spawn_blocking;

use crate::data_keys::DataKeys;
use crate::manifest::Manifest;
use crate::read::{self, OpenBlob, Reader};
use crate::reseal::{self, Flow, Making, SEGMENT_MEMORY, Source};
use crate::seal::{BlobKeys, SegmentSize};
use crate::share::{Pace, Turns};
use crate::store::{BlobStore, Stored, Use};
use crate::stores::Stores;
use crate::threads::Background;
use crate::write::{self, Plan};

/// How blobs are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealOptions {
    /// The plaintext size of the segments of new blobs.
    pub segment: SegmentSize,
    /// Pieces of 1 MiB in each queue of a write, at least one. A write holds about three times as many
    /// in all.
    pub queue: usize,
    /// How blobs are resealed.
    pub reseal: ResealOptions,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self {
            segment: SegmentSize::DEFAULT,
            queue: 4,
            reseal: ResealOptions::default(),
        }
    }
}

/// How this node reseals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResealOptions {
    /// Segments in flight, of all reseals together; none: four times the processors, and at least eight: each waits for the
    /// device most of the time, for a read and a write at once, and a device is fast with many. What is in flight
    /// is done again after a crash.
    pub segments: Option<usize>,
    /// The most memory that the segments in flight take together: fewer are, where it does not suffice.
    pub memory: ByteSize,
    /// Plaintext bytes a second of all reseals together.
    pub node_rate: Option<u64>,
    /// Plaintext bytes a second of one reseal.
    pub job_rate: Option<u64>,
}

impl Default for ResealOptions {
    fn default() -> Self {
        Self {
            segments: None,
            memory: ByteSize::mib(256),
            node_rate: None,
            job_rate: None,
        }
    }
}

impl ResealOptions {
    /// Of a store that takes so many bytes itself for a segment.
    fn flow(&self, memory: u64) -> Flow {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = self.segments.unwrap_or((4 * processors).max(8));
        let fit =
            usize::try_from(self.memory.bytes() / (SEGMENT_MEMORY + memory)).unwrap_or(usize::MAX);
        let segments = wanted.min(fit).max(1);
        Flow {
            turns: Turns::new(segments),
            parallel: segments,
            pace: Pace::new(self.node_rate),
            rate: self.job_rate,
            background: Background::new(processors),
        }
    }
}

/// Sealed blobs in one store, or in several.
pub struct SealedBlobs {
    stores: Stores,
    keys: Arc<DataKeys>,
    options: SealOptions,
    flow: Arc<Flow>,
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
        Self::over(Stores::one(store), key_service, entropy, clock, options)
    }

    /// Sealed blobs in several stores.
    pub fn over(
        stores: Stores,
        key_service: Arc<dyn KeyService>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
        options: SealOptions,
    ) -> Self {
        let flow = options.reseal.flow(stores.memory());
        Self {
            stores,
            keys: Arc::new(DataKeys::new(key_service, entropy, clock)),
            options,
            flow: Arc::new(flow),
        }
    }

    /// Opens a blob, by this wrap or by the one in its manifest; nothing where there is no such blob.
    async fn find(
        &self,
        blob: BlobId,
        wrapped: Option<&WrappedKey>,
        purpose: Use,
    ) -> KeyResult<Option<Arc<OpenBlob>>> {
        let stored = self.stores.open(blob, purpose).await;
        match stored.map_err(|error| error.of_blob(blob))? {
            Some(stored) => self.open_stored(blob, wrapped, stored).await.map(Some),
            None => Ok(None),
        }
    }

    async fn open_stored(
        &self,
        blob: BlobId,
        wrapped: Option<&WrappedKey>,
        stored: Arc<dyn Stored>,
    ) -> KeyResult<Arc<OpenBlob>> {
        let bytes = stored.manifest().clone();
        let front =
            Manifest::front(&bytes, blob).map_err(|error| Error::damaged(error).of_blob(blob))?;
        let (key, lease) = match wrapped {
            Some(wrapped) => self.keys.open(blob, wrapped).await?,
            // A wrap in the manifest is one of the blob's stored bytes.
            None => {
                let opened = self.keys.open(blob, &front.wrapped).await;
                opened.map_err(|fault| fault.of_blob(blob))?
            }
        };
        let keys = BlobKeys::derive(&key)?;
        // A large blob's manifest has megabytes to verify.
        let opened =
            spawn_blocking(move || read::open_blob(&bytes, blob, front, keys, lease, stored))
                .await
                .map_err(Error::internal)??;
        DataKeys::keep_for(&opened.lease, &key);
        Ok(opened)
    }

    async fn verify(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        depth: Depth,
    ) -> Result<BlobCheck> {
        let opened = match self.find(blob, key, Use::OnePass).await {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(BlobCheck::Missing),
            // Its customer has closed it, or shredded it: that is no damage.
            Err(KeyFault::Missing | KeyFault::NotEnabled | KeyFault::Forbidden) => {
                return Ok(BlobCheck::Closed);
            }
            Err(fault) => {
                let error = Error::from(fault);
                // A wrap that is not among the blob's bytes says nothing of them.
                let foreign = error.kind() == ErrorKind::Damaged && error.damaged_blob().is_none();
                if !error.is_transient() && !foreign {
                    return Err(error);
                }
                tracing::warn!(blob.id = %blob, error.chain = %error.chain(), "not checked: its key can't be had");
                return Ok(if foreign {
                    BlobCheck::Closed
                } else {
                    BlobCheck::Away
                });
            }
        };
        read::verify(&opened, depth).await?;
        Ok(BlobCheck::Whole(opened.facts.clone()))
    }
}

impl SealedBlobs {
    /// The store that a blob is to be written to, and what it is known by there.
    async fn place_to_write(&self, blob: BlobId) -> Result<(&Arc<dyn BlobStore>, BlobId)> {
        let place = self.stores.place(blob).await?;
        let place = place.ok_or_else(|| Error::conflict("The write was discarded."))?;
        Ok((self.stores.store(&place.store)?, place.id))
    }

    /// A blob to copy, which is opened where its key can be had.
    async fn find_source(&self, blob: BlobId) -> Result<Source> {
        let stored = self.stores.open(blob, Use::OnePass).await;
        let stored = stored.map_err(|error| error.of_blob(blob))?;
        let stored = stored.ok_or_else(|| missing(blob))?;
        match self.open_stored(blob, None, Arc::clone(&stored)).await {
            Ok(opened) => Ok(Source::Open(opened)),
            Err(KeyFault::Missing | KeyFault::NotEnabled | KeyFault::Forbidden) => {
                let bytes = stored.manifest();
                let manifest = Manifest::front(bytes, blob)
                    .and_then(|front| Manifest::unverified(bytes, blob, front));
                let manifest = manifest.map_err(|error| Error::damaged(error).of_blob(blob))?;
                tracing::info!(blob.id = %blob, "copied as it is: its customer's key is not to be had");
                Ok(Source::Closed { manifest, stored })
            }
            Err(fault) => Err(fault.into_error(KeyRole::Source)),
        }
    }

    /// Whether a whole copy of `manifest` is in a place. One that is damaged is removed: nobody reads it yet.
    async fn is_copied(&self, to: &Place, manifest: &Bytes) -> Result<bool> {
        let store = self.stores.store(&to.store)?;
        match store.open(to.id, Use::OnePass).await {
            Ok(None) => Ok(false),
            Ok(Some(stored)) if stored.manifest() == manifest => Ok(true),
            Ok(Some(_)) => {
                tracing::error!(copy.id = %to.id, "a copy that is another blob's is made again");
                store.delete(to.id).await.map(|()| false)
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::error!(copy.id = %to.id, error.chain = %error.chain(), "a copy that is damaged is made again");
                store.delete(to.id).await.map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// The target of a reseal, where an attempt has committed it.
    async fn find_target(&self, order: &ResealOrder) -> Result<Option<BlobFacts>> {
        let found = self
            .find(order.target, Some(&order.target_key), Use::Shared)
            .await;
        let found = found.map_err(|fault| fault.into_error(KeyRole::Target))?;
        Ok(found.map(|opened| opened.facts.clone()))
    }
}

fn missing(blob: BlobId) -> Error {
    Error::damaged(format!("there is no blob {blob}")).of_blob(blob)
}

#[async_trait::async_trait]
impl Blobs for SealedBlobs {
    async fn fresh_key(&self, blob: BlobId, master: &MasterKey) -> KeyResult<WrappedKey> {
        self.keys.fresh(blob, master).await
    }

    async fn rewrap(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        master: &MasterKey,
    ) -> Result<WrappedKey> {
        // Opened for its manifest: a key that opens that is the right one.
        let opened = self.find(blob, key, Use::Shared).await?;
        let opened = opened.ok_or_else(|| missing(blob))?;
        let (key, _) = self.keys.open(blob, opened.lease.wrapped()).await?;
        let wrapped = self.keys.wrap_again(blob, &key, master).await;
        wrapped.map_err(|fault| fault.into_error(KeyRole::Target))
    }

    async fn write(
        &self,
        blob: BlobId,
        key: &WrappedKey,
        source: ByteStream,
        options: WriteOptions,
    ) -> Result<BlobFacts> {
        let opened = self.keys.open(blob, key).await;
        let (data_key, _) = opened.map_err(|fault| fault.into_error(KeyRole::Target))?;
        let plan = Plan {
            blob,
            keys: Arc::new(BlobKeys::derive(&data_key)?),
            wrapped: key.clone(),
            size: self.options.segment,
            depth: self.options.queue.max(1),
        };
        let (store, id) = self.place_to_write(blob).await?;
        let staged = store.stage(id, plan.size.slot()).await?;
        let written = write::write(plan, source, &options, &staged).await;
        if written.is_err()
            && let Err(error) = staged.abandon().await
        {
            // The first error is the caller's; what stays is named by `list_staged`.
            tracing::warn!(blob.id = %blob, error = %error.chain(), "staged bytes stay behind");
        }
        written
    }

    async fn reseal(&self, order: ResealOrder) -> Result<BlobFacts> {
        let target = order.target;
        let (data_key, lease) = self
            .keys
            .open(target, &order.target_key)
            .await
            .map_err(|fault| fault.into_error(KeyRole::Target))?;
        // An earlier attempt may have come as far as the commit.
        match self.find_target(&order).await {
            Ok(Some(facts)) => return Ok(facts),
            Ok(None) => {}
            // Nobody has it yet: it is made again.
            Err(error) if error.damaged_blob() == Some(target) => {
                tracing::error!(blob.id = %target, error.chain = %error.chain(), "a target that is damaged is made again");
                self.delete(target).await?;
            }
            Err(error) => return Err(error),
        }
        let source = self
            .find(order.source, order.source_key.as_ref(), Use::OnePass)
            .await?
            .ok_or_else(|| missing(order.source))?;
        let (store, id) = self.place_to_write(target).await?;
        let staged = store.resume(id, source.manifest.size.slot()).await?;
        let plan = reseal::Plan {
            source: Source::Open(source),
            target,
            making: Making::Sealed {
                keys: Box::new(BlobKeys::derive(&data_key)?),
                lease,
            },
            project: order.project.clone(),
            progress: Arc::clone(&order.progress),
        };
        match reseal::reseal(plan, Arc::clone(&self.flow), Arc::clone(&staged)).await {
            // An attempt that was believed dead was faster, and what it committed is the same plaintext under the same
            // data key.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let facts = self.find_target(&order).await?.ok_or(error)?;
                if let Err(error) = staged.abandon().await {
                    tracing::warn!(blob.id = %target, error = %error.chain(), "staged bytes stay behind");
                }
                Ok(facts)
            }
            other => other,
        }
    }

    async fn copy(&self, order: CopyOrder) -> Result<()> {
        let CopyOrder { blob, to, .. } = order;
        let source = self.find_source(blob).await?;
        let manifest = source.stored().manifest().clone();
        // An earlier attempt may have come as far as the commit.
        if self.is_copied(&to, &manifest).await? {
            return Ok(());
        }
        let store = self.stores.store(&to.store)?;
        let staged = store.resume(to.id, source.manifest().size.slot()).await?;
        let plan = reseal::Plan {
            source,
            target: to.id,
            making: Making::AsItIs,
            project: order.project,
            progress: order.progress,
        };
        match reseal::reseal(plan, Arc::clone(&self.flow), Arc::clone(&staged)).await {
            // An attempt that was believed dead was faster, with the same bytes.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if !self.is_copied(&to, &manifest).await? {
                    return Err(error);
                }
                if let Err(error) = staged.abandon().await {
                    tracing::warn!(copy.id = %to.id, error = %error.chain(), "staged bytes stay behind");
                }
                Ok(())
            }
            other => other.map(drop),
        }
    }

    async fn open(&self, blob: BlobId, key: Option<&WrappedKey>) -> KeyResult<Arc<dyn BlobReader>> {
        match self.find(blob, key, Use::Shared).await? {
            Some(opened) => Ok(Arc::new(Reader(opened))),
            None => Err(missing(blob).into()),
        }
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        self.keys.forget(blob);
        match self.stores.place(blob).await? {
            Some(place) => self.stores.store(&place.store)?.delete(place.id).await,
            None => Ok(()),
        }
    }

    async fn discard(&self, blob: BlobId) -> Result<()> {
        match self.stores.place(blob).await? {
            Some(place) => self.clear_staged(&place).await,
            None => Ok(()),
        }
    }

    async fn clear(&self, place: &Place) -> Result<()> {
        let store = self.stores.store(&place.store)?;
        store.discard(place.id).await?;
        store.delete(place.id).await
    }

    async fn clear_staged(&self, place: &Place) -> Result<()> {
        let store = self.stores.store(&place.store)?;
        store.discard(place.id).await
    }

    async fn check(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        depth: Depth,
    ) -> Result<BlobCheck> {
        match self.verify(blob, key, depth).await {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                Ok(BlobCheck::Damaged(error.chain()))
            }
            other => other,
        }
    }

    async fn is_there(&self, store: &StoreName) -> Result<()> {
        self.stores.store(store)?.is_there().await
    }

    async fn list(&self, store: &StoreName) -> Result<Vec<(BlobId, Timestamp)>> {
        self.stores.store(store)?.list().await
    }

    async fn list_staged(&self, store: &StoreName) -> Result<Vec<(BlobId, Timestamp)>> {
        self.stores.store(store)?.list_staged().await
    }

    async fn free_space(&self, store: Option<&StoreName>) -> Result<Option<ByteSize>> {
        self.stores.store_or_default(store)?.free_space().await
    }
}
