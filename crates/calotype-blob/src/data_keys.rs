//! Data keys: fresh ones, and those that were unwrapped a short while ago.
//!
//! # Guarantees
//! A key is given out only for the very wrap that it came from, and only for [`LIFE`] after its master key was last
//! asked for: one that was disabled stops working after that. At most [`ROOM`] keys are kept, in a [`Vault`], and each is
//! erased soon after its life, whether or not anybody asks for another. What reads or writes for longer holds a [`Lease`]
//! and asks again when that is over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use calotype_core::id::BlobId;
use calotype_core::keys::{KeyResult, MasterKey};
use calotype_core::ports::{Clock, DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::time::Timestamp;
use calotype_core::vault::{Kept, Vault};

/// How long a data key may be used without its master key being asked for.
pub(crate) const LIFE: Duration = Duration::from_secs(300);
const ROOM: usize = 1024;
/// How often keys are looked for whose life is over, while there are any.
const SWEEP: Duration = Duration::from_secs(10);

struct Known {
    wrapped: WrappedKey,
    key: Kept,
    since: Timestamp,
}

/// The data keys of the blobs in use.
pub(crate) struct DataKeys {
    service: Arc<dyn KeyService>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    known: Mutex<Table>,
    vault: Vault,
}

#[derive(Default)]
struct Table {
    keys: HashMap<BlobId, Known>,
    /// Whether somebody looks for keys whose life is over.
    swept: bool,
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
            known: Mutex::default(),
            vault: Vault::new(ROOM),
        }
    }

    /// A fresh key for `blob`, wrapped under `master`. Its writer will find it here.
    pub(crate) async fn fresh(
        self: &Arc<Self>,
        blob: BlobId,
        master: &MasterKey,
    ) -> KeyResult<WrappedKey> {
        let key = DataKey::random(self.entropy.as_ref());
        let now = self.clock.now();
        let wrapped = self.service.wrap(master, blob, &key).await?;
        self.keep(blob, wrapped.clone(), &key, now);
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
    pub(crate) fn keep_for(lease: &Lease, key: &DataKey) {
        let since = Timestamp::from_micros(lease.since.load(Ordering::Relaxed));
        lease
            .keys
            .keep(lease.blob, lease.wrapped.clone(), key, since);
    }

    /// Forgets a blob's key.
    pub(crate) fn forget(&self, blob: BlobId) {
        self.known().keys.remove(&blob);
    }

    fn find(
        &self,
        blob: BlobId,
        wrapped: &WrappedKey,
        now: Timestamp,
    ) -> Option<(DataKey, Timestamp)> {
        let known = self.known();
        known
            .keys
            .get(&blob)
            .filter(|known| known.wrapped == *wrapped && fresh(known.since, now))
            .map(|known| (known.key.key().into(), known.since))
    }

    fn keep(self: &Arc<Self>, blob: BlobId, wrapped: WrappedKey, key: &DataKey, since: Timestamp) {
        let now = self.clock.now();
        let mut known = self.known();
        // Its place is free before another is asked for.
        known.keys.remove(&blob);
        if known.keys.len() >= ROOM {
            known.keys.retain(|_, known| fresh(known.since, now));
        }
        if known.keys.len() >= ROOM {
            // Full of fresh keys: unwrapping one again costs less than keeping an order of use.
            known.keys.clear();
        }
        if let Some(key) = self.vault.keep(key.expose()) {
            known.keys.insert(
                blob,
                Known {
                    wrapped,
                    key,
                    since,
                },
            );
            if !std::mem::replace(&mut known.swept, true) {
                tokio::spawn(sweep(Arc::downgrade(self)));
            }
        }
    }

    /// Erases the keys whose life is over; false where none is left.
    fn erase_old(&self) -> bool {
        let now = self.clock.now();
        let mut known = self.known();
        known.keys.retain(|_, known| fresh(known.since, now));
        known.swept = !known.keys.is_empty();
        known.swept
    }

    fn known(&self) -> MutexGuard<'_, Table> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Erases keys whose life is over, until there are none.
async fn sweep(keys: Weak<DataKeys>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let left = keys.upgrade().is_some_and(|keys| keys.erase_old());
        if !left {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use calotype_keys::{ScriptedKeys, SystemEntropy};

    #[derive(Default)]
    struct SetClock(AtomicI64);

    impl Clock for SetClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0.load(Ordering::SeqCst))
        }
    }

    fn setup() -> (Arc<DataKeys>, Arc<SetClock>) {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let clock = Arc::new(SetClock::default());
        let service = Arc::new(ScriptedKeys::new(Arc::clone(&entropy)));
        let keys = DataKeys::new(service, entropy, Arc::clone(&clock) as Arc<dyn Clock>);
        (Arc::new(keys), clock)
    }

    async fn fresh_key(keys: &Arc<DataKeys>) -> BlobId {
        let blob = BlobId::random(keys.entropy.as_ref());
        keys.fresh(blob, &MasterKey::Service).await.unwrap();
        blob
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_erased_after_its_life_though_nobody_asks_for_another() {
        let (keys, clock) = setup();
        for _ in 0..2 {
            let blob = fresh_key(&keys).await;
            tokio::time::sleep(LIFE).await;
            assert!(
                keys.known().keys.contains_key(&blob),
                "by the clock it is new"
            );
            clock.0.fetch_add(LIFE.as_micros() as i64, Ordering::SeqCst);
            tokio::time::sleep(SWEEP + Duration::from_millis(1)).await;
            assert!(keys.known().keys.is_empty());
            assert!(!keys.known().swept, "nobody looks for what is not there");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_keys() {
        let (keys, _) = setup();
        let mut newest = fresh_key(&keys).await;
        for _ in 0..ROOM {
            newest = fresh_key(&keys).await;
        }
        assert!(keys.known().keys.len() <= ROOM);
        assert!(keys.known().keys.contains_key(&newest));
    }
}
