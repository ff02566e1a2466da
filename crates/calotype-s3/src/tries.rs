//! One request to a store, as often as it takes: with time-outs of our own, pauses between the tries, and a breaker.
//!
//! # What is tried again
//! What had no answer, a 5xx, 408 and 429, an answer that broke off, and one that is not what was asked for. Pauses grow from
//! 50 ms to 2 s, each at random between half of that and all of it. A try may take `attempt_timeout`; all of them together,
//! but for the waiting for a connection, `time_limit`.
//!
//! # What is not
//! What the store refuses for a reason. Where an operator has to mend that (a key, a bucket), the error says that the store is
//! away: what waits, waits for the operator.
//!
//! # The breaker
//! A request that something is only begun with fails at once while the store is believed to be away. One in the middle of
//! something waits, as long as its time lasts.

use std::sync::Arc;
use std::time::Duration;

use calotype_core::ports::Entropy;
use calotype_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::bucket::Limits;
use crate::told::{Told, away};

const REQUESTS: &str = "calotype_s3_requests_total";
const DURATION: &str = "calotype_s3_request_duration_seconds";
const RETRIES: &str = "calotype_s3_retries_total";
const IN_FLIGHT: &str = "calotype_s3_requests_in_flight";
const AWAY: &str = "calotype_s3_store_away";

/// Tells the metrics' meaning to the recorder that is installed. Called once, after it is.
pub fn describe_metrics() {
    metrics::describe_counter!(
        REQUESTS,
        "Requests to the store of blobs, by operation and outcome (ok, missing, refused, failed)."
    );
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "Time of a request to the store of blobs, with its body."
    );
    metrics::describe_counter!(
        RETRIES,
        "Requests to the store of blobs that were made again."
    );
    metrics::describe_gauge!(IN_FLIGHT, "Requests to the store of blobs that are on.");
    metrics::describe_gauge!(
        AWAY,
        "1 while the store of blobs is believed to be away, and is not asked."
    );
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often an answer that contradicts what is known of the object is doubted before it is believed.
const DOUBTS: u32 = 2;

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Read,
    Head,
    Put,
    Delete,
    List,
    Begin,
    Part,
    Complete,
    Abort,
    Uploads,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Read => "read",
            Self::Head => "head",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Begin => "begin",
            Self::Part => "part",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::Uploads => "uploads",
        }
    }
}

/// How a try ended in vain.
#[derive(Debug)]
pub(crate) enum Fault {
    /// There is no such object, or upload.
    Missing,
    /// 404 from whoever it was: a store says what it is that is not there.
    NotFound(Error),
    /// There are no such bytes in the object.
    OutOfRange,
    /// The store does not know the operation.
    Unknown,
    /// It is no use to try again.
    Refused(Error),
    /// The store was not reached, or did not do it this time.
    Failed(Error),
    /// The store answered that it has too much to do.
    Busy(Error),
    /// The answer contradicts what is known.
    Doubtful(Error),
}

impl Fault {
    /// The error for the caller.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Missing => away("an object is not there"),
            Self::OutOfRange => Error::damaged("an object is shorter than it was"),
            Self::Unknown => away("the store does not know this request"),
            Self::NotFound(error)
            | Self::Refused(error)
            | Self::Failed(error)
            | Self::Busy(error)
            | Self::Doubtful(error) => error,
        }
    }

    const fn outcome(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::OutOfRange | Self::Unknown | Self::Refused(_) => "refused",
            Self::NotFound(_) | Self::Failed(_) | Self::Busy(_) | Self::Doubtful(_) => "failed",
        }
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        let told = Told::by(&error);
        let code = told.code.as_deref().unwrap_or_default();
        match (told.status, code) {
            // Before the status: that it is the bucket that is missing is the operator's to mend.
            (_, "NoSuchBucket") => Self::Refused(away(error)),
            (Some(507), _) | (_, "QuotaExceeded" | "XMinioStorageFull") => {
                let full = Error::new(ErrorKind::StorageFull, "The image storage is full.");
                Self::Refused(full.with_context(error))
            }
            (_, "NoSuchKey" | "NoSuchUpload") => Self::Missing,
            (Some(404), _) => Self::NotFound(away(error)),
            (Some(416), _) => Self::OutOfRange,
            (Some(501), _) | (_, "NotImplemented") => Self::Unknown,
            (Some(429), _) | (_, "SlowDown") => Self::Busy(away(error)),
            // No answer, or none that makes sense.
            (None | Some(408 | 409 | 500..), _) | (_, "RequestTimeout") => {
                Self::Failed(away(error))
            }
            (Some(_), _) => Self::Refused(away(error)),
        }
    }
}

/// What all requests to a bucket share.
pub(crate) struct Tries {
    /// The store's name, for the metrics.
    pub(crate) store: metrics::SharedString,
    pub(crate) limits: Limits,
    pub(crate) permits: Semaphore,
    /// What carries the bytes of images takes one of these, too: they are fewer, so that what is small goes beside them.
    pub(crate) bulk: Semaphore,
    pub(crate) breaker: Breaker,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Tries {
    /// Does something until it is done, or it is no use. Who is `patient` waits for a store that is believed to be away.
    pub(crate) async fn run<T, F, R>(
        &self,
        operation: Operation,
        patient: bool,
        mut once: F,
    ) -> Result<T, Fault>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, Fault>>,
    {
        let mut waited = Duration::ZERO;
        let mut worked = Duration::ZERO;
        let mut pause = FIRST_PAUSE;
        let mut doubts = 0;
        loop {
            let last = if self.breaker.lets_through() {
                let closed = |closed| Fault::Refused(Error::internal(closed));
                let _bulk = match operation {
                    Operation::Part | Operation::Read => {
                        Some(self.bulk.acquire().await.map_err(closed)?)
                    }
                    _ => None,
                };
                let _permit = self.permits.acquire().await.map_err(closed)?;
                let begun = Instant::now();
                let ended = self.once(operation, once()).await;
                worked += begun.elapsed();
                match ended {
                    Ok(done) => return Ok(done),
                    Err(Fault::Doubtful(error)) if doubts >= DOUBTS => {
                        return Err(Fault::Doubtful(error));
                    }
                    Err(fault) => {
                        doubts += u32::from(matches!(fault, Fault::Doubtful(_)));
                        fault
                    }
                }
            } else if waited.is_zero() && !patient {
                return Err(Fault::Failed(away("the store is believed to be away")));
            } else {
                Fault::Failed(away("the store was left alone for a while"))
            };
            let again = matches!(last, Fault::Failed(_) | Fault::Busy(_) | Fault::Doubtful(_));
            let now = self.between_half_and_all(pause);
            if !again || waited + worked + now > self.limits.time_limit {
                return Err(last);
            }
            tokio::time::sleep(now).await;
            waited += now;
            pause = (2 * pause).min(LONGEST_PAUSE);
            let store = self.store.clone();
            metrics::counter!(RETRIES, "store" => store, "operation" => operation.as_str())
                .increment(1);
        }
    }

    async fn once<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let begun = Instant::now();
        let store = || self.store.clone();
        let on = metrics::gauge!(IN_FLIGHT, "store" => store());
        on.increment(1);
        let on = InFlight(on);
        let ended = match tokio::time::timeout(self.limits.attempt_timeout, request).await {
            Ok(ended) => ended,
            Err(late) => Err(Fault::Failed(away(late))),
        };
        let ended = ended.map_err(|fault| match fault {
            // An answer without a body can't say more.
            Fault::NotFound(_) if operation == Operation::Head => Fault::Missing,
            // Somebody between may have said it.
            Fault::NotFound(error) => Fault::Failed(error),
            fault => fault,
        });
        drop(on);
        let outcome = ended.as_ref().map_or_else(Fault::outcome, |_| "ok");
        let name = operation.as_str();
        metrics::counter!(REQUESTS, "store" => store(), "operation" => name, "outcome" => outcome)
            .increment(1);
        metrics::histogram!(DURATION, "store" => store(), "operation" => name)
            .record(begun.elapsed().as_secs_f64());
        match &ended {
            Err(Fault::Failed(error)) => {
                tracing::debug!(s3.operation = name, error.chain = %error.chain(), "a request to the store failed");
                if self.breaker.failed() {
                    tracing::warn!(error.chain = %error.chain(), "the store is away");
                }
            }
            Ok(_) | Err(_) => self.breaker.answered(),
        }
        metrics::gauge!(AWAY, "store" => store()).set(f64::from(u8::from(self.breaker.is_open())));
        ended
    }

    fn between_half_and_all(&self, pause: Duration) -> Duration {
        let mut random = [0; 1];
        self.entropy.fill(&mut random);
        pause / 2 + pause * u32::from(random[0]) / 512
    }
}

/// A request that is on, also where its future is dropped.
struct InFlight(metrics::Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Fixed;

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(255);
        }
    }

    fn tries() -> Tries {
        Tries {
            store: metrics::SharedString::const_str("main"),
            limits: Limits {
                connections: 4,
                attempt_timeout: Duration::from_secs(5),
                time_limit: Duration::from_secs(30),
            },
            permits: Semaphore::new(4),
            bulk: Semaphore::new(3),
            breaker: Breaker::default(),
            entropy: Arc::new(Fixed),
        }
    }

    fn failed() -> Fault {
        Fault::Failed(away("no answer"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_a_while_is_done_in_the_end() {
        let (tries, asked) = (tries(), AtomicU32::new(0));
        let done = tries.run(Operation::Part, false, || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(failed()),
                count => Ok(count),
            }
        });
        assert_eq!(done.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_given_up_in_time() {
        let (tries, begun) = (tries(), Instant::now());
        let hangs = || async { std::future::pending::<Result<(), Fault>>().await };
        let ended = tries.run(Operation::Read, true, hangs).await;
        assert!(ended.unwrap_err().into_error().is_transient());
        let limit = tries.limits.time_limit + tries.limits.attempt_timeout;
        assert!(begun.elapsed() <= limit, "{:?}", begun.elapsed());
        // By now it is believed away: who only begins is told at once, and nothing is asked.
        let (begun, never) = (Instant::now(), || async { unreachable!("not asked") });
        let ended: Result<(), Fault> = tries.run(Operation::Get, false, never).await;
        assert!(ended.unwrap_err().into_error().is_transient());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_not_tried_again() {
        let (tries, asked) = (tries(), AtomicU32::new(0));
        for fault in [
            || Fault::Missing,
            || Fault::OutOfRange,
            || Fault::Unknown,
            || Fault::Refused(away("forbidden")),
        ] {
            asked.store(0, Ordering::Relaxed);
            let ended: Result<(), Fault> = tries
                .run(Operation::Put, false, || {
                    asked.fetch_add(1, Ordering::Relaxed);
                    async move { Err(fault()) }
                })
                .await;
            assert!(ended.is_err());
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
        assert!(!tries.breaker.is_open(), "the store answers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_contradiction_is_believed_when_it_is_repeated() {
        let (tries, asked) = (tries(), AtomicU32::new(0));
        let ended: Result<(), Fault> = tries
            .run(Operation::Read, false, || {
                asked.fetch_add(1, Ordering::Relaxed);
                async { Err(Fault::Doubtful(Error::damaged("of another size"))) }
            })
            .await;
        assert_eq!(ended.unwrap_err().into_error().kind(), ErrorKind::Damaged);
        assert_eq!(asked.load(Ordering::Relaxed), DOUBTS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_404_that_says_no_more_is_a_missing_object_only_where_no_more_can_be_said() {
        for (operation, missing) in [(Operation::Head, true), (Operation::Get, false)] {
            let (tries, asked) = (tries(), AtomicU32::new(0));
            let ended: Result<(), Fault> = tries
                .run(operation, false, || {
                    asked.fetch_add(1, Ordering::Relaxed);
                    async { Err(Fault::NotFound(away("not found"))) }
                })
                .await;
            assert_eq!(matches!(ended, Err(Fault::Missing)), missing);
            assert_eq!(
                asked.load(Ordering::Relaxed) == 1,
                missing,
                "or asked again"
            );
        }
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let of = |status: &str, code: &str| {
            Fault::from(object_store::Error::Generic {
                store: "S3",
                source: format!("non-2xx status code: {status} : <Code>{code}</Code>").into(),
            })
        };
        assert!(matches!(of("404", "NoSuchKey"), Fault::Missing));
        assert!(matches!(of("404", "NoSuchUpload"), Fault::Missing));
        assert!(matches!(of("404", ""), Fault::NotFound(_)));
        assert!(matches!(of("404", "NoSuchBucket"), Fault::Refused(_)));
        assert!(matches!(of("416", "InvalidRange"), Fault::OutOfRange));
        assert!(matches!(of("501", "NotImplemented"), Fault::Unknown));
        assert!(matches!(of("503", "SlowDown"), Fault::Busy(_)));
        for (status, code) in [
            ("500", "InternalError"),
            ("503", ""),
            ("400", "RequestTimeout"),
        ] {
            assert!(matches!(of(status, code), Fault::Failed(_)), "{status}");
        }
        for (status, code) in [
            ("403", "SignatureDoesNotMatch"),
            ("301", "PermanentRedirect"),
        ] {
            let Fault::Refused(error) = of(status, code) else {
                unreachable!("{status} is refused");
            };
            assert!(error.is_transient(), "an operator mends it");
        }
        for (status, code) in [("507", "InsufficientStorage"), ("403", "QuotaExceeded")] {
            let error = of(status, code).into_error();
            assert_eq!(error.kind(), ErrorKind::StorageFull);
        }
    }
}
