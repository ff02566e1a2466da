//! Data keys that were unwrapped a short while ago.
//!
//! # Guarantees
//! A key is given out only for the very wrap that it came from, and only for [`LIFE`]: a master key that
//! was disabled stops working after that. At most [`ROOM`] keys are kept, and dropped ones are erased.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use calotype_core::id::BlobId;
use calotype_core::ports::{DataKey, WrappedKey};
use calotype_core::time::Timestamp;

const LIFE: Duration = Duration::from_secs(300);
const ROOM: usize = 1024;

struct Kept {
    wrapped: WrappedKey,
    key: DataKey,
    since: Timestamp,
}

/// The cache.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<HashMap<BlobId, Kept>>);

impl KeyCache {
    /// The key that `wrapped` held, if it was put here less than [`LIFE`] before `now`.
    pub(crate) fn get(
        &self,
        blob: BlobId,
        wrapped: &WrappedKey,
        now: Timestamp,
    ) -> Option<DataKey> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&blob)
            .filter(|kept| kept.wrapped == *wrapped && fresh(kept, now))
            .map(|kept| kept.key.clone())
    }

    /// Keeps a key that was just unwrapped.
    pub(crate) fn put(&self, blob: BlobId, wrapped: WrappedKey, key: DataKey, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ROOM {
            kept.retain(|_, kept| fresh(kept, now));
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
                since: now,
            },
        );
    }

    /// Forgets a blob's key.
    pub(crate) fn forget(&self, blob: BlobId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&blob);
    }
}

fn fresh(kept: &Kept, now: Timestamp) -> bool {
    // A clock that was set back makes a key old, not young for longer.
    now >= kept.since && now.since(kept.since) < LIFE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(byte: u8) -> WrappedKey {
        WrappedKey {
            master_key: "service".to_owned(),
            version: 1,
            sealed: vec![byte],
        }
    }

    fn id(number: u128) -> BlobId {
        BlobId::from(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_key_is_given_for_its_own_wrap_and_for_five_minutes_only() {
        let cache = KeyCache::default();
        let start = Timestamp::from_micros(1_000_000);
        cache.put(id(1), wrap(1), DataKey::new([7; 32]), start);
        assert!(cache.get(id(1), &wrap(1), start).is_some());
        assert!(cache.get(id(1), &wrap(2), start).is_none());
        assert!(cache.get(id(2), &wrap(1), start).is_none());
        assert!(cache.get(id(1), &wrap(1), start.plus(LIFE)).is_none());
        let earlier = start.minus(Duration::from_secs(1));
        assert!(cache.get(id(1), &wrap(1), earlier).is_none());
        cache.forget(id(1));
        assert!(cache.get(id(1), &wrap(1), start).is_none());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let cache = KeyCache::default();
        let now = Timestamp::from_micros(0);
        for number in 0..3 * ROOM as u128 {
            cache.put(id(number), wrap(1), DataKey::new([7; 32]), now);
        }
        assert!(cache.0.lock().expect("not poisoned").len() <= ROOM);
    }
}
