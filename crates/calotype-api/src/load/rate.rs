//! How many requests a second somebody may make: the generic cell rate algorithm (ITU-T I.371), one instant for each who
//! asks.
//!
//! The map of those who ask is bounded. Whoever has not asked for as long as a burst takes to fill again is forgotten, which
//! changes nothing for it. Where the map is full of others, who is new shares one allowance with all who are: nobody can
//! make the service remember more, and nobody is without a limit.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most that are remembered at once.
const MOST: usize = 100_000;
/// How often a full map is looked through for who can be forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// A rate for all nodes together, of which each node enforces its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, in the long run.
    pub per_second: u32,
    /// Requests at once, after a pause.
    pub burst: u32,
    /// The nodes that share them.
    pub nodes: u32,
}

/// What is left to each that asks.
#[derive(Debug)]
pub(super) struct Allowances<K> {
    /// The time between two requests.
    interval: Duration,
    /// How far ahead of that time a request may be.
    tolerance: Duration,
    most: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    /// When the next request would be on time.
    due: HashMap<K, Instant>,
    /// The same for all whom the map has no room for.
    others: Option<Instant>,
    swept: Option<Instant>,
}

impl<K: Hash + Eq + Clone> Allowances<K> {
    pub(super) fn new(rate: Rate) -> Self {
        let nodes = rate.nodes.max(1);
        let interval = Duration::from_secs(1) * nodes / rate.per_second.max(1);
        let burst = (rate.burst / nodes).max(1);
        Self {
            interval,
            tolerance: interval * (burst - 1),
            most: MOST,
            held: Mutex::new(Held {
                due: HashMap::new(),
                others: None,
                swept: None,
            }),
        }
    }

    /// Takes one request from what `key` may make.
    ///
    /// # Errors
    /// When one may be made again, where there is none left.
    pub(super) fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.due.contains_key(key) && held.due.len() >= self.most {
            held.forget(now);
        }
        let due = match held.due.get(key) {
            Some(due) => Some(*due),
            None if held.due.len() >= self.most => held.others,
            None => None,
        };
        let due = due.map_or(now, |due| due.max(now));
        let ahead = due - now;
        if ahead > self.tolerance {
            return Err(ahead - self.tolerance);
        }
        let next = due + self.interval;
        if held.due.len() >= self.most && !held.due.contains_key(key) {
            held.others = Some(next);
        } else {
            held.due.insert(key.clone(), next);
        }
        Ok(())
    }
}

impl<K: Hash + Eq> Held<K> {
    /// Forgets those who have their whole burst again.
    fn forget(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.due.retain(|_, due| *due > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 5,
        nodes: 1,
    };

    fn taken(allowances: &Allowances<u32>, key: u32, at: Instant, times: u32) -> u32 {
        let taken = (0..times).filter(|_| allowances.take(&key, at).is_ok());
        u32::try_from(taken.count()).unwrap()
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let allowances = Allowances::new(RATE);
        let start = Instant::now();
        assert_eq!(taken(&allowances, 1, start, 20), 5);
        assert_eq!(taken(&allowances, 2, start, 20), 5, "each has its own");
        let wait = allowances.take(&1, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(taken(&allowances, 1, start + wait, 20), 1);
        let later = start + Duration::from_secs(1);
        assert_eq!(
            taken(&allowances, 1, later, 20),
            5,
            "and no more than the burst"
        );
    }

    #[test]
    fn nodes_together_permit_what_one_would() {
        let nodes: Vec<_> = (0..5)
            .map(|_| Allowances::new(Rate { nodes: 5, ..RATE }))
            .collect();
        let start = Instant::now();
        let taken_in = |at| nodes.iter().map(|node| taken(node, 1, at, 20)).sum::<u32>();
        assert_eq!(taken_in(start), 5);
        let mut later = 0;
        for step in 1..=40 {
            later += taken_in(start + Duration::from_millis(step * 250));
        }
        assert_eq!(later, 100, "ten seconds of ten");
    }

    #[test]
    fn who_is_new_in_a_full_map_shares_one_allowance_until_others_are_forgotten() {
        let mut allowances = Allowances::new(RATE);
        allowances.most = 3;
        let start = Instant::now();
        for key in 0..3 {
            assert_eq!(taken(&allowances, key, start, 20), 5);
        }
        assert_eq!(taken(&allowances, 3, start, 20), 5);
        assert_eq!(taken(&allowances, 4, start, 20), 0);
        assert_eq!(allowances.held.lock().unwrap().due.len(), 3);
        let later = start + Duration::from_secs(2);
        assert_eq!(taken(&allowances, 4, later, 20), 5);
        assert_eq!(taken(&allowances, 5, later, 20), 5);
    }
}
