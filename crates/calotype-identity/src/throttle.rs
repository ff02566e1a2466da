//! Slows down the guessing of passwords, per user.
//!
//! After [`FREE`] wrong passwords in a row each further one closes the user's door for twice as long, up to
//! [`LONGEST`]. While it is closed no password is right. A good login forgets all. The memory is bounded: an
//! attacker with many names pushes out old entries and gains [`FREE`] guesses a name, not one more; entries are
//! per process. Anybody can hold a door closed that way, but not for longer than [`LONGEST`] after they stop, and
//! neither tokens nor access keys go through it.

use std::time::Duration;

use calotype_core::time::Timestamp;
use moka::sync::Cache;

const FREE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(60);
const MEMORY: Duration = Duration::from_secs(15 * 60);
const USERS: u64 = 10_000;

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    closed_until: Timestamp,
}

pub(crate) struct Throttle(Cache<String, Failures>);

impl Throttle {
    pub(crate) fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(USERS)
                .time_to_idle(MEMORY)
                .build(),
        )
    }

    pub(crate) fn is_closed(&self, user: &str, now: Timestamp) -> bool {
        self.0
            .get(user)
            .is_some_and(|failures| now < failures.closed_until)
    }

    pub(crate) fn failed(&self, user: &str, now: Timestamp) {
        self.0.entry_by_ref(user).and_upsert_with(|entry| {
            let before = entry.map_or(0, |entry| entry.into_value().count);
            let count = before.saturating_add(1);
            let doublings = count.saturating_sub(FREE).min(6);
            let wait = if count < FREE {
                Duration::ZERO
            } else {
                Duration::from_secs(1 << doublings).min(LONGEST)
            };
            Failures {
                count,
                closed_until: now.plus(wait),
            }
        });
    }

    pub(crate) fn succeeded(&self, user: &str) {
        self.0.invalidate(user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_closes_for_longer_and_longer_but_never_for_more_than_a_minute() {
        let throttle = Throttle::new();
        let mut now = Timestamp::from_micros(0);
        for _ in 0..FREE - 1 {
            throttle.failed("u", now);
            assert!(!throttle.is_closed("u", now));
        }
        throttle.failed("u", now);
        assert!(throttle.is_closed("u", now));
        assert!(!throttle.is_closed("other", now));
        now = now.plus(Duration::from_secs(1));
        assert!(!throttle.is_closed("u", now));
        for _ in 0..50 {
            throttle.failed("u", now);
        }
        assert!(throttle.is_closed("u", now.plus(Duration::from_secs(59))));
        assert!(!throttle.is_closed("u", now.plus(LONGEST)));
        throttle.succeeded("u");
        assert!(!throttle.is_closed("u", now));
    }
}
