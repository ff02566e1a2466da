//! Data keys: fresh ones, and those that were unwrapped a short while ago.
//!
//! # Guarantees
//! A key is given out only for the very wrap that it came from, and only for [`LIFE`] after its master key was last
//! asked for: one that was disabled stops working after that. At most [`ROOM`] keys are kept, and dropped ones are
//! erased. What reads or writes for longer holds a [`Lease`] and asks again when that is over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use calotype_core::id::BlobId;
use calotype_core::keys::{KeyResult, MasterKey};
use calotype_core::ports::{Clock, DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::time::Timestamp;

/// How long a data key may be used without its master key being asked for.
pub(crate) const LIFE: Duration = Duration::from_secs(300);
const ROOM: usize = 1024;

struct Kept {
    wrapped: WrappedKey,
    key: DataKey,
    since: Timestamp,
}

/// The data keys of the blobs in use.
pub(crate) struct DataKeys {
    service: Arc<dyn KeyService>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<BlobId, Kept>>,
}

impl DataKeys {
    pub(crate) fn new(
        service: Arc<dyn KeyService>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            service,
            entropy,
            clock,
            kept: Mutex::default(),
        }
    }

    /// A fresh key for `blob`, wrapped under `master`. Its writer will find it here.
    pub(crate) async fn fresh(&self, blob: BlobId, master: &MasterKey) -> KeyResult<WrappedKey> {
        let key = DataKey::random(self.entropy.as_ref());
        let now = self.clock.now();
        let wrapped = self.service.wrap(master, blob, &key).await?;
        self.keep(blob, wrapped.clone(), key, now);
        Ok(wrapped)
    }

    /// The same key under another master key. The blob's readers go on with the wrap that they have.
    pub(crate) async fn wrap_again(
        &self,
        blob: BlobId,
        key: &DataKey,
        master: &MasterKey,
    ) -> KeyResult<WrappedKey> {
        self.service.wrap(master, blob, key).await
    }

    /// The key in a wrap, and the lease on which it may be used.
    pub(crate) async fn open(
        self: &Arc<Self>,
        blob: BlobId,
        wrapped: &WrappedKey,
    ) -> KeyResult<(DataKey, Lease)> {
        let now = self.clock.now();
        let (key, since) = match self.find(blob, wrapped, now) {
            Some(found) => found,
            None => (self.service.unwrap(blob, wrapped).await?, now),
        };
        let lease = Lease {
            keys: Arc::clone(self),
            blob,
            wrapped: wrapped.clone(),
            since: AtomicI64::new(since.as_micros()),
        };
        Ok((key, lease))
    }

    /// Keeps a key that has proved right.
    pub(crate) fn keep_for(&self, lease: &Lease, key: DataKey) {
        let since = Timestamp::from_micros(lease.since.load(Ordering::Relaxed));
        self.keep(lease.blob, lease.wrapped.clone(), key, since);
    }

    /// Forgets a blob's key.
    pub(crate) fn forget(&self, blob: BlobId) {
        self.kept().remove(&blob);
    }

    fn find(
        &self,
        blob: BlobId,
        wrapped: &WrappedKey,
        now: Timestamp,
    ) -> Option<(DataKey, Timestamp)> {
        let kept = self.kept();
        kept.get(&blob)
            .filter(|kept| kept.wrapped == *wrapped && fresh(kept.since, now))
            .map(|kept| (kept.key.clone(), kept.since))
    }

    fn keep(&self, blob: BlobId, wrapped: WrappedKey, key: DataKey, since: Timestamp) {
        let now = self.clock.now();
        let mut kept = self.kept();
        if kept.len() >= ROOM {
            kept.retain(|_, kept| fresh(kept.since, now));
        }
        if kept.len() >= ROOM {
            // Full of fresh keys: unwrapping one again costs less than keeping an order of use.
            kept.clear();
        }
        kept.insert(
            blob,
            Kept {
                wrapped,
                key,
                since,
            },
        );
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<BlobId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh(since: Timestamp, now: Timestamp) -> bool {
    // A clock that was set back makes a key old, not young for longer.
    now >= since && now.since(since) < LIFE
}

/// The right to go on using a data key.
pub(crate) struct Lease {
    keys: Arc<DataKeys>,
    blob: BlobId,
    wrapped: WrappedKey,
    since: AtomicI64,
}

impl Lease {
    /// Asks for the master key again where that was too long ago. To be called from time to time by what reads or
    /// writes for long.
    pub(crate) async fn renew(&self) -> KeyResult<()> {
        let now = self.keys.clock.now();
        if fresh(
            Timestamp::from_micros(self.since.load(Ordering::Relaxed)),
            now,
        ) {
            return Ok(());
        }
        self.keys.service.unwrap(self.blob, &self.wrapped).await?;
        self.since.store(now.as_micros(), Ordering::Relaxed);
        Ok(())
    }

    /// The wrap that the key came from.
    pub(crate) const fn wrapped(&self) -> &WrappedKey {
        &self.wrapped
    }
}
