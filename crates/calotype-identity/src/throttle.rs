//! Slows down the guessing of passwords, by user and by the guesser's network.
//!
//! After [`FREE`] wrong passwords in a row from one network each further one closes the user's door for it for twice
//! as long, up to [`LONGEST`]. While a door is closed no password is right. A good login forgets the failures. Whoever
//! guesses closes the door to themselves alone: with the right password the user gets in from elsewhere.
//!
//! Guesses from many networks meet a looser bound: after [`FREE_IN_ALL`] of them within [`WINDOW`] each further one
//! closes the user's door likewise, but for networks that the user logged in from before. A single network does not
//! come near it.
//!
//! A network is an IPv4 address or 64 bits of an IPv6 address. Clients behind one proxy are one network: there anybody
//! can hold a door closed, but not for longer than [`LONGEST`] after they stop. The memory is bounded: an attacker with
//! many names or networks pushes out old entries and gains [`FREE`] guesses for each, not one more; entries are per
//! process. Neither tokens nor access keys go through a door.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use calotype_core::time::Timestamp;
use moka::sync::Cache;

const FREE: u32 = 5;
const FREE_IN_ALL: u32 = 50;
const LONGEST: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long a network is known as one of the user's after a good login.
const FAMILIAR: Duration = Duration::from_secs(30 * 24 * 3600);
const ENTRIES: u64 = 10_000;

/// Where a login comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(Option<IpAddr>);

impl From<Option<IpAddr>> for Network {
    fn from(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
                IpAddr::V6(network)
            }
            v4 @ IpAddr::V4(_) => v4,
        }))
    }
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    since: Timestamp,
    closed_until: Timestamp,
}

impl Failures {
    /// One more than before, of which `free` close nothing.
    fn one_more(before: Option<Self>, free: u32, now: Timestamp) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let doublings = count.saturating_sub(free).min(6);
        let wait = if count < free {
            Duration::ZERO
        } else {
            Duration::from_secs(1 << doublings).min(LONGEST)
        };
        Self {
            count,
            since: before.map_or(now, |before| before.since),
            closed_until: now.plus(wait),
        }
    }
}

pub(crate) struct Throttle {
    by_network: Cache<(String, Network), Failures>,
    by_user: Cache<String, Failures>,
    familiar: Cache<(String, Network), ()>,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self {
            by_network: Cache::builder()
                .max_capacity(ENTRIES)
                .time_to_idle(WINDOW)
                .build(),
            by_user: Cache::builder()
                .max_capacity(ENTRIES)
                .time_to_idle(WINDOW)
                .build(),
            familiar: Cache::builder()
                .max_capacity(ENTRIES)
                .time_to_live(FAMILIAR)
                .build(),
        }
    }

    pub(crate) fn is_closed(&self, user: &str, network: Network, now: Timestamp) -> bool {
        let closed = |failures: Option<Failures>| {
            failures.is_some_and(|failures| now < failures.closed_until)
        };
        let door = (user.to_owned(), network);
        closed(self.by_network.get(&door))
            || (closed(self.by_user.get(user)) && !self.familiar.contains_key(&door))
    }

    pub(crate) fn failed(&self, user: &str, network: Network, now: Timestamp) {
        let door = (user.to_owned(), network);
        self.by_network.entry(door).and_upsert_with(|entry| {
            Failures::one_more(entry.map(moka::Entry::into_value), FREE, now)
        });
        self.by_user.entry_by_ref(user).and_upsert_with(|entry| {
            let before = entry.map(moka::Entry::into_value);
            let before = before.filter(|before| now.since(before.since) <= WINDOW);
            Failures::one_more(before, FREE_IN_ALL, now)
        });
    }

    pub(crate) fn succeeded(&self, user: &str, network: Network) {
        let door = (user.to_owned(), network);
        self.by_network.invalidate(&door);
        self.familiar.insert(door, ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Network {
        Some(address.parse::<IpAddr>().unwrap()).into()
    }

    #[test]
    fn the_door_closes_for_longer_and_longer_but_never_for_more_than_a_minute() {
        let throttle = Throttle::new();
        let here = from("192.0.2.1");
        let mut now = Timestamp::from_micros(0);
        for _ in 0..FREE - 1 {
            throttle.failed("u", here, now);
            assert!(!throttle.is_closed("u", here, now));
        }
        throttle.failed("u", here, now);
        assert!(throttle.is_closed("u", here, now));
        assert!(!throttle.is_closed("other", here, now));
        now = now.plus(Duration::from_secs(1));
        assert!(!throttle.is_closed("u", here, now));
        for _ in 0..50 {
            throttle.failed("u", here, now);
        }
        assert!(throttle.is_closed("u", here, now.plus(Duration::from_secs(59))));
        assert!(!throttle.is_closed("u", here, now.plus(LONGEST)));
        throttle.succeeded("u", here);
        assert!(!throttle.is_closed("u", here, now));
    }

    #[test]
    fn who_guesses_closes_the_door_to_its_own_network_alone_however_long_it_goes_on() {
        let throttle = Throttle::new();
        let (guesser, user) = (from("2001:db8:0:1::1"), from("2001:db8:0:2::1"));
        let mut now = Timestamp::from_micros(0);
        for _ in 0..10_000 {
            if !throttle.is_closed("u", guesser, now) {
                throttle.failed("u", guesser, now);
            }
            assert!(!throttle.is_closed("u", user, now));
            now = now.plus(Duration::from_secs(1));
        }
        throttle.failed("u", guesser, now);
        assert!(throttle.is_closed("u", from("2001:db8:0:1:ffff::"), now));
        assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
        assert_ne!(from("192.0.2.1"), from("192.0.2.2"));
    }

    #[test]
    fn guesses_from_many_networks_close_the_door_to_all_that_the_user_never_came_from() {
        let throttle = Throttle::new();
        let (home, stranger) = (from("192.0.2.1"), from("192.0.2.2"));
        let now = Timestamp::from_micros(0);
        throttle.succeeded("u", home);
        for guess in 1..=FREE_IN_ALL {
            assert!(!throttle.is_closed("u", stranger, now));
            throttle.failed("u", from(&format!("198.51.100.{guess}")), now);
        }
        assert!(throttle.is_closed("u", stranger, now));
        assert!(!throttle.is_closed("u", home, now));
        assert!(!throttle.is_closed("u", stranger, now.plus(LONGEST)));
        // What was guessed before the window is forgotten.
        let later = now.plus(WINDOW + LONGEST);
        throttle.failed("u", from("198.51.100.1"), later);
        assert!(!throttle.is_closed("u", stranger, later));
        // A familiar network that guesses closes its own door all the same.
        for _ in 0..FREE {
            throttle.failed("u", home, later);
        }
        assert!(throttle.is_closed("u", home, later));
    }
}
