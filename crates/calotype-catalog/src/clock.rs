//! The database's clock, told between two readings of it.
//!
//! Where several nodes share a database, its clock is the only one that they agree on: a node's own may be wrong by a
//! day. What is judged in SQL asks the database each time. All else that a node calls the time (when an image was made,
//! whether a token is still good) is the last reading, and what has gone by since on a clock that nobody sets.
//!
//! Every transaction that asks for the time is a reading, so that a database that fails over to a machine with another
//! clock is followed within a poll of the jobs.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;

/// The time as the database has it.
#[derive(Debug)]
pub(crate) struct DatabaseClock {
    begin: Instant,
    /// What time it was at `begin`, in microseconds.
    at_begin: AtomicI64,
}

impl DatabaseClock {
    /// A clock that is not set yet.
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            at_begin: AtomicI64::new(0),
        }
    }

    /// Takes a reading that was asked for at `asked` and is answered now.
    pub(crate) fn set(&self, asked: Instant, told: Timestamp) {
        self.take(told, asked.elapsed());
    }

    /// Takes a reading whose answer is here after `took`. It was taken at some instant of that: a clock that tells a time
    /// within it is right already, and is left alone.
    fn take(&self, told: Timestamp, took: Duration) {
        let way = took / 2;
        let wanted = told.plus(way).minus(self.begin.elapsed()).as_micros();
        let off = wanted.abs_diff(self.at_begin.load(Ordering::Relaxed));
        if u128::from(off) > way.as_micros() {
            self.at_begin.store(wanted, Ordering::Relaxed);
        }
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        let at_begin = Timestamp::from_micros(self.at_begin.load(Ordering::Relaxed));
        at_begin.plus(self.begin.elapsed())
    }
}

/// A clock that stands still.
#[cfg(test)]
pub(crate) struct Epoch;

#[cfg(test)]
impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const NOON: Timestamp = Timestamp::from_micros(1_704_164_645_000_000);

    #[test]
    fn the_time_goes_on_from_the_last_reading() {
        let clock = DatabaseClock::new();
        for told in [NOON, NOON.plus(DAY), NOON.minus(DAY)] {
            let asked = Instant::now();
            clock.set(asked, told);
            let (now, since) = (clock.now(), asked.elapsed());
            // Two readings of the clock that nobody sets, each cut to whole microseconds.
            let most = told.plus(since + Duration::from_micros(1));
            assert!(
                told <= now && now <= most,
                "{now:?} is not within {since:?} of {told:?}"
            );
        }
    }

    #[test]
    fn a_reading_that_took_long_does_not_move_a_clock_that_may_be_right() {
        let clock = DatabaseClock::new();
        clock.set(Instant::now(), NOON);
        let before = clock.at_begin.load(Ordering::Relaxed);
        // On its way for a minute, and so taken at any time of that minute.
        let minute = Duration::from_secs(60);
        clock.take(NOON.minus(Duration::from_secs(20)), minute);
        assert_eq!(clock.at_begin.load(Ordering::Relaxed), before);
        clock.take(NOON.minus(DAY), minute);
        assert_ne!(clock.at_begin.load(Ordering::Relaxed), before);
    }
}
