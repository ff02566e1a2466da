//! Does not ask a store that does not answer.
//!
//! After [`FAILURES`] failures in a row nothing is asked for [`PAUSE`]; then one request may try, and its end decides. So
//! who can wait elsewhere is told at once that the store is away, and a store that comes back is not met by everybody.
//!
//! Unlike the breaker of `calotype-remote`, it does not wait for the end of the one that tries: a read of a store that stands
//! still takes as long as a slow one, and the store is found again by the next meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which the store is believed to be away.
const FAILURES: u32 = 5;

/// For how long it is left alone.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// When the next request may try. None: the store answers.
    closed_until: Option<Instant>,
}

impl Breaker {
    /// Whether a request may be made. One that may while the store is believed away is the only one for a while.
    pub(crate) fn lets_through(&self) -> bool {
        let mut state = self.locked();
        let now = Instant::now();
        match state.closed_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // Also where its end is never told, because it was given up.
                state.closed_until = Some(now + PAUSE);
                true
            }
        }
    }

    /// The store answered, whatever it said.
    pub(crate) fn answered(&self) {
        *self.locked() = State::default();
    }

    /// The store did not answer, or not with sense. Says whether it is believed away because of that.
    pub(crate) fn failed(&self) -> bool {
        let mut state = self.locked();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return false;
        }
        state.closed_until = Some(Instant::now() + PAUSE);
        state.failures == FAILURES
    }

    /// Whether the store is believed away.
    pub(crate) fn is_open(&self) -> bool {
        self.locked().closed_until.is_some()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_is_left_alone_and_then_tried_by_one() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(!breaker.failed());
            assert!(breaker.lets_through());
        }
        assert!(breaker.failed());
        assert!(breaker.is_open() && !breaker.lets_through());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.lets_through());
        assert!(!breaker.lets_through(), "one tries");
        assert!(!breaker.failed());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.lets_through());
        breaker.answered();
        assert!(!breaker.is_open() && breaker.lets_through() && breaker.lets_through());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_between_starts_the_count_again() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..FAILURES {
                breaker.failed();
            }
            breaker.answered();
        }
        assert!(!breaker.is_open());
    }
}
