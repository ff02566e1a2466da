//! An endpoint that may be slow, away or busy: attempts with bounded time, waits with jitter, a circuit breaker.
//!
//! # Guarantees
//! A call ends at its deadline. Every request that goes through here can be repeated without harm, and is, where the
//! endpoint was away (no answer, a 5xx, a redirect) or busy (429); any other answer is the caller's. A breaker that is
//! open refuses at once.

use std::sync::Arc;
use std::time::Duration;

use calotype_core::ports::Entropy;
use calotype_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::Breaker;
use crate::transport::{Answer, Connection, Http, Request, Transport, Trouble};

/// The bound of the first wait; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The bound of any wait that nobody asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// When a retry makes sense where nobody said.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How a service elsewhere is spoken of.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Its name in the log.
    pub name: &'static str,
    /// What callers are told while it can't be used.
    pub away: &'static str,
}

impl Names {
    /// The service can't be used now. `context` goes to the log.
    pub fn unavailable(&self, retry_after: Duration, context: impl Into<String>) -> Error {
        let kind = ErrorKind::Unavailable { retry_after };
        Error::new(kind, self.away).with_context(context.into())
    }

    /// As [`Names::unavailable`], where nobody knows for how long.
    pub fn unusable(&self, context: impl Into<String>) -> Error {
        self.unavailable(RETRY_AFTER, context)
    }
}

/// A service at the other end of a network.
pub struct Endpoint {
    names: Names,
    transport: Arc<dyn Transport>,
    breaker: Breaker,
    entropy: Arc<dyn Entropy>,
    attempt_timeout: Duration,
    time_limit: Duration,
    attempts: u32,
}

impl Endpoint {
    /// The endpoint that messages call by these names.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn new(names: Names, connection: &Connection, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let transport = Arc::new(Http::new(connection)?);
        Ok(Self::over(names, transport, connection, entropy))
    }

    /// The same over another transport.
    pub fn over(
        names: Names,
        transport: Arc<dyn Transport>,
        connection: &Connection,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            names,
            transport,
            breaker: Breaker::default(),
            entropy,
            attempt_timeout: connection.attempt_timeout,
            time_limit: connection.time_limit,
            attempts: connection.attempts,
        }
    }

    /// When a call that begins now has to end.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.time_limit
    }

    /// Sends a request until there is an answer that is not about the endpoint's own state, or no time. A 429 comes back
    /// where the retries did not help.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn call(&self, request: &Request, deadline: Instant) -> Result<Answer> {
        let mut attempt = 1;
        loop {
            let (last, asked) = match self.attempt(request, deadline).await? {
                Ok(answer) if is_busy(&answer) => {
                    let asked = answer.retry_after();
                    (Ok(answer), asked)
                }
                Ok(answer) if is_away(&answer) => {
                    let asked = answer.retry_after();
                    let said = format!("it answered {}", answer.status);
                    (Err(self.away(&said, asked)), asked)
                }
                Ok(answer) => return Ok(answer),
                Err(trouble) => (Err(self.away(&trouble.to_string(), None)), None),
            };
            let wait = self.jitter(attempt) + asked.unwrap_or_default();
            let left = deadline.saturating_duration_since(Instant::now());
            if attempt >= self.attempts || wait >= left {
                return last;
            }
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<std::result::Result<Answer, Trouble>> {
        let admission = self.breaker.admit().map_err(|left| {
            let said = "it was away several times in a row and is left alone";
            self.away(said, Some(left))
        })?;
        let until = deadline.min(Instant::now() + self.attempt_timeout);
        let sent = timeout_at(until, self.transport.send(request.clone())).await;
        let outcome = sent.unwrap_or(Err(Trouble::Timeout));
        match &outcome {
            Ok(answer) if !is_away(answer) => admission.answered(),
            Ok(_) | Err(_) => admission.failed(),
        }
        Ok(outcome)
    }

    /// Anything from nothing to the bound: what failed together does not come back together.
    fn jitter(&self, attempt: u32) -> Duration {
        let bound = FIRST_WAIT.saturating_mul(1 << (attempt - 1).min(10));
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        let share = f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX);
        bound.min(LONGEST_WAIT).mul_f64(share)
    }

    fn away(&self, said: &str, retry_after: Option<Duration>) -> Error {
        let retry_after = retry_after.unwrap_or(RETRY_AFTER);
        let context = format!("{}: {said}", self.names.name);
        self.unavailable(retry_after, context)
    }

    /// The service behind the endpoint can't be used now. `context` goes to the log.
    pub fn unavailable(&self, retry_after: Duration, context: impl Into<String>) -> Error {
        self.names.unavailable(retry_after, context)
    }

    /// As [`Endpoint::unavailable`], where nobody knows for how long.
    pub fn unusable(&self, context: impl Into<String>) -> Error {
        self.names.unusable(context)
    }
}

fn is_busy(answer: &Answer) -> bool {
    answer.status == 429
}

fn is_away(answer: &Answer) -> bool {
    answer.status >= 500 || answer.status < 200 || (300..400).contains(&answer.status)
}

#[cfg(test)]
mod tests;
