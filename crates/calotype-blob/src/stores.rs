//! The stores of a process, and which of them a blob is in.
//!
//! Where every blob is, is asked of [`Places`]. Where there is one store alone, a blob is first looked for there by its own id, and only
//! asked for if it is not there: it may be known by another name, or be in a store that another process was told of.
//!
//! # Consistency
//! Copies of a blob are the same bytes. So what is open stays right while the blob is moved, and what is gone is looked for again:
//! once where it is now, or else what was wrong with it is said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use calotype_core::id::{BlobId, StoreName};
use calotype_core::ports::{Labels, Place, Places};
use calotype_core::{Error, Result};

use crate::store::{BlobStore, Buffer, Slot, Stored, Use};

/// How often a blob that is moved again and again is looked for before its last place is believed.
const LOOKS: usize = 4;

/// A blob in a store; none where it is not there.
type Found = Result<Option<Arc<dyn Stored>>>;

/// The stores of a process.
#[derive(Clone)]
pub struct Stores(Arc<Inner>);

struct Inner {
    stores: BTreeMap<StoreName, Arc<dyn BlobStore>>,
    /// The one that new blobs go to.
    default: StoreName,
    /// Who knows where blobs are; none: all are in the default store, by their own ids.
    places: Option<Arc<dyn Places>>,
    /// Whether a blob was not where it was believed to be: then all are asked for.
    asks_first: AtomicBool,
}

impl Stores {
    /// One store, which has every blob by its own id.
    pub fn one(store: Arc<dyn BlobStore>) -> Self {
        let name = StoreName::main();
        Self(Arc::new(Inner {
            stores: BTreeMap::from([(name.clone(), store)]),
            default: name,
            places: None,
            asks_first: AtomicBool::new(false),
        }))
    }

    /// Several stores by their names.
    ///
    /// # Errors
    /// InvalidRequest where the default is none of them.
    pub fn new(
        stores: BTreeMap<StoreName, Arc<dyn BlobStore>>,
        default: StoreName,
        places: Arc<dyn Places>,
    ) -> Result<Self> {
        if !stores.contains_key(&default) {
            return Err(Error::invalid(format!("There is no store {default}.")));
        }
        let asks_first = AtomicBool::new(stores.len() > 1);
        Ok(Self(Arc::new(Inner {
            stores,
            default,
            places: Some(places),
            asks_first,
        })))
    }

    /// The store of this name.
    ///
    /// # Errors
    /// Unavailable where this process has none: another one may.
    pub(crate) fn store(&self, name: &StoreName) -> Result<&Arc<dyn BlobStore>> {
        let unknown = || Error::unavailable(format!("this process has no store {name}"));
        self.0.stores.get(name).ok_or_else(unknown)
    }

    /// The store of this name, or else the one that new blobs go to.
    pub(crate) fn store_or_default(&self, name: Option<&StoreName>) -> Result<&Arc<dyn BlobStore>> {
        self.store(name.unwrap_or(&self.0.default))
    }

    /// Where a blob is, or is to be written; none where nobody knows it.
    pub(crate) async fn place(&self, blob: BlobId) -> Result<Option<Place>> {
        match &self.0.places {
            Some(places) => places.place(blob).await,
            None => Ok(Some(self.believed(blob))),
        }
    }

    fn believed(&self, blob: BlobId) -> Place {
        Place {
            store: self.0.default.clone(),
            id: blob,
        }
    }

    /// The memory that the stores take for a segment: see [`BlobStore::memory`].
    pub(crate) fn memory(&self) -> u64 {
        let stores = self.0.stores.values();
        stores.map(|store| store.memory()).max().unwrap_or_default()
    }

    /// Opens a blob where it is; nothing where there is none.
    pub(crate) async fn open(&self, blob: BlobId, purpose: Use) -> Result<Option<Arc<dyn Stored>>> {
        let believed = self.believed(blob);
        if self.0.places.is_none() {
            return self.store(&believed.store)?.open(blob, purpose).await;
        }
        if !self.0.asks_first.load(Ordering::Relaxed)
            && let Some(stored) = self.store(&believed.store)?.open(blob, purpose).await?
        {
            return Ok(Some(self.following(blob, purpose, believed, stored)));
        }
        let mut looked: Option<(Place, Found)> = None;
        for _ in 0..LOOKS {
            let place = self.place(blob).await?;
            match (place, looked.take()) {
                // Nobody knows it any more, whatever was there before.
                (None, _) => return Ok(None),
                (Some(place), Some((before, found))) if place == before => return found,
                (Some(place), _) => {
                    let found = self.store(&place.store)?.open(place.id, purpose).await;
                    if let Ok(Some(stored)) = found {
                        if place != believed {
                            self.0.asks_first.store(true, Ordering::Relaxed);
                        }
                        return Ok(Some(self.following(blob, purpose, place, stored)));
                    }
                    looked = Some((place, found));
                }
            }
        }
        looked.map_or(Ok(None), |(_, found)| found)
    }

    fn following(
        &self,
        blob: BlobId,
        purpose: Use,
        place: Place,
        stored: Arc<dyn Stored>,
    ) -> Arc<dyn Stored> {
        Arc::new(Following {
            stores: self.clone(),
            blob,
            purpose,
            manifest: stored.manifest().clone(),
            now: Mutex::new((place, stored)),
        })
    }
}

/// Labels are in every store: whatever one of them is lost with, the others have.
#[async_trait::async_trait]
impl Labels for Stores {
    async fn label(&self, name: &str) -> Result<Option<Bytes>> {
        if let Some(label) = self.store_or_default(None)?.label(name).await? {
            return Ok(Some(label));
        }
        for store in self.0.stores.values() {
            if let Some(label) = store.label(name).await? {
                return Ok(Some(label));
            }
        }
        Ok(None)
    }

    async fn is_label(&self, name: &str, bytes: &Bytes) -> Result<bool> {
        for store in self.0.stores.values() {
            if store.label(name).await?.as_ref() != Some(bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()> {
        for store in self.0.stores.values() {
            if store.label(name).await?.as_ref() != Some(&bytes) {
                store.set_label(name, bytes.clone()).await?;
            }
        }
        Ok(())
    }
}

/// An open blob that is followed when it is moved.
struct Following {
    stores: Stores,
    blob: BlobId,
    purpose: Use,
    manifest: Bytes,
    now: Mutex<(Place, Arc<dyn Stored>)>,
}

impl Following {
    fn now(&self) -> (Place, Arc<dyn Stored>) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }

    /// The blob where it is now, if that is not where it was.
    async fn moved(&self, before: &Place) -> Result<Option<Arc<dyn Stored>>> {
        let (place, stored) = self.now();
        if place != *before {
            // Another reader of the same has found it.
            return Ok(Some(stored));
        }
        let Some(place) = self.stores.place(self.blob).await? else {
            return Ok(None);
        };
        if place == *before {
            return Ok(None);
        }
        let store = self.stores.store(&place.store)?;
        let stored = store.open(place.id, self.purpose).await?;
        // The readers know the segments by this manifest alone.
        let Some(stored) = stored.filter(|stored| *stored.manifest() == self.manifest) else {
            return Ok(None);
        };
        tracing::debug!(blob.id = %self.blob, store.name = %place.store, "a reader follows its blob");
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (place, Arc::clone(&stored));
        Ok(Some(stored))
    }
}

#[async_trait::async_trait]
impl Stored for Following {
    fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    async fn read(&self, slot: Slot, offset: u64, length: usize, buffer: Buffer) -> Result<Buffer> {
        let (place, stored) = self.now();
        let error = match stored.read(slot, offset, length, buffer).await {
            Err(error) => error,
            read => return read,
        };
        match self.moved(&place).await {
            Ok(Some(stored)) => stored.read(slot, offset, length, Buffer::default()).await,
            Ok(None) => Err(error),
            Err(second) => {
                tracing::warn!(blob.id = %self.blob, error.chain = %second.chain(), "where the blob is now is not known");
                Err(error)
            }
        }
    }

    async fn read_again(
        &self,
        slot: Slot,
        offset: u64,
        length: usize,
        buffer: Buffer,
    ) -> Result<Option<Buffer>> {
        let (place, stored) = self.now();
        if let Some(stored) = self.moved(&place).await? {
            return stored.read(slot, offset, length, buffer).await.map(Some);
        }
        stored.read_again(slot, offset, length, buffer).await
    }
}
