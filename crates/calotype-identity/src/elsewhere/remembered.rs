//! What Keystone said of a credential, for a while.
//!
//! # Guarantees
//! Of those who come with one credential at once, one asks; the others get what it was told. A good answer is believed for
//! the cache's life since it was asked for, and never past the credential's own end; a refusal for [`REFUSED`] at the
//! longest; that Keystone is away for no time at all. Credentials are keys by a keyed hash alone, whose key the process
//! draws and nobody else knows: neither a credential nor what could be compared with one is in memory. There is room for
//! so many; what is asked for often stays where many others come once.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use calotype_core::ports::{Clock, Entropy};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use moka::future::Cache;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::refused;

/// The longest that a refusal is believed.
const REFUSED: Duration = Duration::from_secs(10);

/// What Keystone said.
pub(crate) enum Told<T> {
    /// The credential is good, and lasts for so long where it ends.
    Good(T, Option<Duration>),
    /// It is not.
    Refused(&'static str),
}

/// What was said, of many credentials of one kind.
pub(crate) struct Remembered<T> {
    kind: &'static str,
    key: hmac::Key,
    life: Duration,
    clock: Arc<dyn Clock>,
    entries: Cache<[u8; 32], Entry<T>>,
}

struct Entry<T> {
    said: Said<T>,
    /// The end by the process's own time, which no one sets.
    until: Instant,
    /// The end by the time of day: the other one stands still while the machine sleeps.
    until_of_day: Timestamp,
}

enum Said<T> {
    Good(Arc<T>),
    Refused(&'static str),
    Away(Arc<Error>),
}

impl<T> Clone for Said<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Good(good) => Self::Good(Arc::clone(good)),
            Self::Refused(reason) => Self::Refused(reason),
            Self::Away(error) => Self::Away(Arc::clone(error)),
        }
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            said: self.said.clone(),
            ..*self
        }
    }
}

impl<T: Send + Sync + 'static> Remembered<T> {
    /// Room for `room` credentials; metrics call them `kind`.
    pub(crate) fn new(
        kind: &'static str,
        life: Duration,
        room: u64,
        entropy: &dyn Entropy,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut bits = Zeroizing::new([0; 32]);
        entropy.fill(bits.as_mut_slice());
        Self {
            kind,
            key: hmac::Key::new(hmac::HMAC_SHA256, bits.as_slice()),
            life,
            clock,
            entries: Cache::builder()
                .max_capacity(room)
                // So that what is over leaves the memory, too.
                .time_to_live(life.max(Duration::from_secs(1)))
                .build(),
        }
    }

    /// What is known of a credential, or else what `ask` is told.
    ///
    /// # Errors
    /// Unauthenticated where it was refused; that of `ask`.
    pub(crate) async fn get(
        &self,
        credential: &str,
        ask: impl Future<Output = Result<Told<T>>>,
    ) -> Result<Arc<T>> {
        let mut key = [0; 32];
        key.copy_from_slice(hmac::sign(&self.key, credential.as_bytes()).as_ref());
        let now = (Instant::now(), self.clock.now());
        let entry = self
            .entries
            .entry(key)
            .or_insert_with_if(self.asked(ask), |entry| entry.is_over(now))
            .await;
        if !entry.is_fresh() {
            metrics::counter!(super::CACHE_HITS, "what" => self.kind).increment(1);
        }
        match entry.into_value().said {
            Said::Good(good) => Ok(good),
            Said::Refused(reason) => Err(refused(reason)),
            Said::Away(error) => Err(again(&error)),
        }
    }

    async fn asked(&self, ask: impl Future<Output = Result<Told<T>>>) -> Entry<T> {
        let (since, since_of_day) = (Instant::now(), self.clock.now());
        let told = ask.await;
        let outcome = match &told {
            Ok(Told::Good(..)) => "good",
            Ok(Told::Refused(_)) => "refused",
            Err(_) => "away",
        };
        metrics::counter!(super::VALIDATIONS, "what" => self.kind, "outcome" => outcome)
            .increment(1);
        metrics::histogram!(super::DURATION, "what" => self.kind)
            .record(since.elapsed().as_secs_f64());
        let (said, life) = match told {
            Ok(Told::Good(good, left)) => (
                Said::Good(Arc::new(good)),
                left.map_or(self.life, |left| left.min(self.life)),
            ),
            Ok(Told::Refused(reason)) => (Said::Refused(reason), self.life.min(REFUSED)),
            Err(error) => {
                tracing::warn!(error.chain = %error.chain(), "a credential can't be looked up");
                (Said::Away(Arc::new(error)), Duration::ZERO)
            }
        };
        Entry {
            said,
            until: since + life,
            until_of_day: since_of_day.plus(life),
        }
    }
}

impl<T> Entry<T> {
    fn is_over(&self, (now, of_day): (Instant, Timestamp)) -> bool {
        self.until <= now || self.until_of_day <= of_day
    }
}

/// The error once more, for another one who waited for it. Its context was logged where it arose.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.message())
}

#[cfg(test)]
mod tests;
