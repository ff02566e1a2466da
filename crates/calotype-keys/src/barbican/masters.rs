//! Secrets that Barbican gave a short while ago.
//!
//! # Guarantees
//! A secret is found only until its end, is erased from memory then, whether or not anybody asks, and at most [`ROOM`]
//! are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::cipher::Material;

/// How many secrets are kept.
pub(super) const ROOM: usize = 256;

/// A secret's bytes.
pub(super) struct Master {
    key: Material,
    asked: Instant,
}

impl Master {
    /// The bytes that were asked for at `asked`.
    pub(super) fn new(key: Material, asked: Instant) -> Self {
        Self { key, asked }
    }

    pub(super) fn key(&self) -> &Material {
        &self.key
    }
}

struct Kept {
    master: Arc<Master>,
    until: Instant,
}

type Turn = tokio::sync::Mutex<()>;

/// The secrets.
#[derive(Default)]
pub(super) struct Masters {
    kept: Mutex<HashMap<Uuid, Kept>>,
    turns: Mutex<HashMap<Uuid, Weak<Turn>>>,
}

impl Masters {
    /// A secret that was asked for not before `since`.
    pub(super) fn find(&self, id: Uuid, since: Instant) -> Option<Arc<Master>> {
        let now = Instant::now();
        let kept = self.kept();
        kept.get(&id)
            .filter(|kept| now < kept.until && since <= kept.master.asked)
            .map(|kept| Arc::clone(&kept.master))
    }

    /// Keeps a secret until then.
    pub(super) fn keep(self: &Arc<Self>, id: Uuid, master: Arc<Master>, until: Instant) {
        let masters = Arc::downgrade(self);
        let mut kept = self.kept();
        if kept.len() >= ROOM {
            // Asking again costs less than an order of use.
            kept.clear();
        }
        kept.insert(id, Kept { master, until });
        tokio::spawn(async move {
            sleep_until(until).await;
            if let Some(masters) = masters.upgrade() {
                masters.expire(id);
            }
        });
    }

    /// Who asks for a secret holds its turn meanwhile.
    pub(super) fn turn(&self, id: Uuid) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(id, Arc::downgrade(&turn));
        turn
    }

    /// Drops a secret that may not be used any more.
    pub(super) fn forget(&self, id: Uuid) {
        self.kept().remove(&id);
    }

    fn expire(&self, id: Uuid) {
        let now = Instant::now();
        let mut kept = self.kept();
        // One that was fetched meanwhile has its own end.
        if kept.get(&id).is_some_and(|kept| kept.until <= now) {
            kept.remove(&id);
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Uuid, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIFE: Duration = Duration::from_secs(60);

    fn keep(masters: &Arc<Masters>, id: u128) -> Weak<Master> {
        let now = Instant::now();
        let master = Arc::new(Master::new(Material::from_slice(&[7; 32]).unwrap(), now));
        let weak = Arc::downgrade(&master);
        masters.keep(Uuid::from_u128(id), master, now + LIFE);
        weak
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_dropped_at_its_end_though_nobody_asks() {
        let masters = Arc::new(Masters::default());
        let master = keep(&masters, 1);
        let since = Instant::now();
        assert!(masters.find(Uuid::from_u128(1), since).is_some());
        tokio::time::sleep(LIFE / 2).await;
        // Too old for this one.
        assert!(masters.find(Uuid::from_u128(1), Instant::now()).is_none());
        assert!(master.upgrade().is_some());
        tokio::time::sleep(LIFE / 2 + Duration::from_millis(1)).await;
        assert!(master.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_was_fetched_again_has_its_own_end() {
        let masters = Arc::new(Masters::default());
        keep(&masters, 1);
        tokio::time::sleep(LIFE / 2).await;
        let again = keep(&masters, 1);
        tokio::time::sleep(LIFE / 2 + Duration::from_millis(1)).await;
        assert!(again.upgrade().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many() {
        let masters = Arc::new(Masters::default());
        let all: Vec<_> = (0..=ROOM as u128).map(|id| keep(&masters, id)).collect();
        let alive = all.iter().filter(|one| one.upgrade().is_some()).count();
        assert!((1..=ROOM).contains(&alive));
    }
}
