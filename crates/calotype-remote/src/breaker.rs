//! A circuit breaker: what has been away several times in a row is left alone for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many unavailable answers in a row open the breaker.
const FAILURES: u32 = 5;

/// How long it stays open before one request may try.
const OPEN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// The breaker of one endpoint.
#[derive(Debug)]
pub(crate) struct Breaker(Mutex<State>);

impl Default for Breaker {
    fn default() -> Self {
        Self(Mutex::new(State::Closed { failures: 0 }))
    }
}

impl Breaker {
    /// Lets a request through.
    ///
    /// # Errors
    /// How long the endpoint is left alone. While a request probes it, that is a guess.
    pub(crate) fn admit(&self) -> Result<Admission<'_>, Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now < until => return Err(until - now),
            State::Open { .. } => {
                *state = State::Probing;
                true
            }
            State::Probing => return Err(Duration::from_secs(1)),
        };
        Ok(Admission {
            breaker: self,
            probe,
            settled: false,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let through; its outcome has to be told. A probe that is dropped untold leaves its place to the
/// next one.
pub(crate) struct Admission<'a> {
    breaker: &'a Breaker,
    probe: bool,
    settled: bool,
}

impl Admission<'_> {
    /// The endpoint answered, whatever it was.
    pub(crate) fn answered(mut self) {
        self.settled = true;
        let mut state = self.breaker.state();
        // One that was let through before the breaker opened says nothing of now.
        if self.probe || matches!(*state, State::Closed { .. }) {
            *state = State::Closed { failures: 0 };
        }
    }

    /// The endpoint was away.
    pub(crate) fn failed(mut self) {
        self.settled = true;
        let until = Instant::now() + OPEN;
        let mut state = self.breaker.state();
        match *state {
            State::Closed { failures } if failures + 1 < FAILURES => {
                *state = State::Closed {
                    failures: failures + 1,
                };
            }
            State::Closed { .. } => *state = State::Open { until },
            State::Probing if self.probe => *state = State::Open { until },
            State::Open { .. } | State::Probing => {}
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            *self.breaker.state() = State::Open {
                until: Instant::now(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.admit().unwrap().failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_one_probe_at_a_time_may_close_it() {
        let breaker = Breaker::default();
        fail(&breaker, 4);
        breaker.admit().unwrap().answered();
        fail(&breaker, 5);
        assert_eq!(breaker.admit().err(), Some(OPEN));
        tokio::time::advance(OPEN).await;
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_err(), "a second probe");
        probe.failed();
        assert_eq!(breaker.admit().err(), Some(OPEN));
        tokio::time::advance(OPEN).await;
        breaker.admit().unwrap().answered();
        fail(&breaker, 4);
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_its_place_to_the_next() {
        let breaker = Breaker::default();
        fail(&breaker, 5);
        tokio::time::advance(OPEN).await;
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_when_it_opened_does_not_close_it() {
        let breaker = Breaker::default();
        let early = breaker.admit().unwrap();
        fail(&breaker, 5);
        early.answered();
        assert!(breaker.admit().is_err());
    }
}
