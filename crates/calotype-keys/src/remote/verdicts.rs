//! Permissions that were given a short while ago.
//!
//! # Guarantees
//! Only permissions are kept, no refusals: who was just given one is heard at once. None is kept for longer than it was
//! noted for, and at most [`ROOM`] are.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const ROOM: usize = 4096;

/// What was permitted, and until when that is believed.
pub(crate) struct Verdicts<K> {
    life: Duration,
    until: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Verdicts<K> {
    /// Verdicts that are believed for so long.
    pub(crate) fn new(life: Duration) -> Self {
        Self {
            life,
            until: Mutex::default(),
        }
    }

    /// Whether it was permitted within the life.
    pub(crate) fn permits(&self, what: &K) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(what).is_some_and(|until| Instant::now() < *until)
    }

    /// Notes a permission that was asked for at `since`.
    pub(crate) fn note(&self, what: K, since: Instant) {
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= ROOM {
            until.retain(|_, until| now < *until);
        }
        if until.len() >= ROOM {
            // Asking again costs less than an order of use.
            until.clear();
        }
        until.insert(what, since + self.life);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_permission_is_believed_for_its_life_since_it_was_asked_for() {
        let verdicts = Verdicts::new(Duration::from_secs(60));
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(10)).await;
        verdicts.note("key", since);
        assert!(verdicts.permits(&"key"));
        assert!(!verdicts.permits(&"other"));
        tokio::time::advance(Duration::from_secs(50)).await;
        assert!(!verdicts.permits(&"key"));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many() {
        let verdicts = Verdicts::new(Duration::from_secs(60));
        for what in 0..=ROOM {
            verdicts.note(what, Instant::now());
        }
        assert!(verdicts.permits(&ROOM));
        assert!(verdicts.until.lock().unwrap().len() <= ROOM);
    }
}
