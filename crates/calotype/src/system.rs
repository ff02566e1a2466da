//! The clock of the running process, and names that are drawn at random.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calotype_core::id::random_hex;
use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;
use calotype_keys::SystemEntropy;

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Clock port's own implementation"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A fresh 128-bit name in hexadecimal: for an `Idempotency-Key` or a generated password.
pub(crate) fn fresh_name() -> String {
    random_hex(&SystemEntropy::new())
}
