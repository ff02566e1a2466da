//! This machine's clock, for tests of crates that are given one.

use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;

/// The time of day, and so much more.
pub struct WallClock {
    /// Seconds that it is ahead.
    pub ahead: i64,
}

impl Clock for WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is an implementation of the Clock port"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.expect("a time").as_micros() as i64;
        Timestamp::from_micros(micros + self.ahead * 1_000_000)
    }
}
