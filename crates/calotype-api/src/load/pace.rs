//! How slowly a client may send.
//!
//! Only the time counts in which the service waits for the client: one that is faster than the store is never too slow,
//! however long the store takes.

use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use calotype_core::{Error, ErrorKind, Result};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use crate::ops::cut;

/// The slowest that a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowestBody {
    /// Bytes in each second that is waited for them.
    pub per_second: u64,
    /// How long is waited before it is looked at again.
    pub after: Duration,
}

/// Watches one body.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How long it may stand still.
    idle: Duration,
    slowest: Option<SlowestBody>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(idle: Duration, slowest: Option<SlowestBody>) -> Self {
        Self {
            idle,
            slowest,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// The next bytes of the body.
    ///
    /// # Errors
    /// TimedOut where it stands still, or comes too slowly; InvalidRequest where it breaks off.
    pub(crate) async fn next(&mut self, frames: &mut BodyDataStream) -> Option<Result<Bytes>> {
        let mut still = self.idle;
        loop {
            let left = self.slowest.map(|slowest| slowest.after - self.waited);
            let pause = left.map_or(still, |left| left.min(still));
            let start = Instant::now();
            let next = timeout(pause, frames.next()).await;
            let waited = start.elapsed();
            match next {
                Ok(None) => return None,
                Ok(Some(Err(error))) => {
                    let broken = Error::invalid("The request's body broke off.");
                    return Some(Err(broken.with_context(error.into_inner())));
                }
                Ok(Some(Ok(bytes))) => {
                    self.bytes += bytes.len() as u64;
                    return Some(self.judge(waited).map(|()| bytes));
                }
                Err(_) if pause >= still => {
                    cut("stalled_body");
                    return Some(Err(Error::new(
                        ErrorKind::TimedOut,
                        "The request's body stood still for too long.",
                    )));
                }
                Err(_) => {
                    still -= pause;
                    if let Err(error) = self.judge(pause.max(waited)) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Counts time that was waited, and looks at what came in it once it is enough.
    fn judge(&mut self, waited: Duration) -> Result<()> {
        let Some(SlowestBody { per_second, after }) = self.slowest else {
            return Ok(());
        };
        self.waited += waited;
        if self.waited < after {
            return Ok(());
        }
        let wanted = self.waited.as_secs_f64() * per_second as f64;
        let came = self.bytes as f64;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        if came >= wanted {
            return Ok(());
        }
        cut("slow_body");
        Err(Error::new(
            ErrorKind::TimedOut,
            "The request's body came too slowly.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const SLOWEST: SlowestBody = SlowestBody {
        per_second: 10,
        after: Duration::from_secs(30),
    };

    /// A body of parts of this size, each after this pause.
    fn dripping(size: usize, pause: Duration) -> BodyDataStream {
        let parts = stream::repeat(()).take(1000).then(move |()| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; size]))
        });
        Body::from_stream(parts).into_data_stream()
    }

    /// How many parts come before the body is cut or over, and what it is cut with.
    async fn parts(mut frames: BodyDataStream, work: Duration) -> (usize, Option<Error>) {
        let mut pace = Pace::new(IDLE, Some(SLOWEST));
        let mut count = 0;
        while let Some(next) = pace.next(&mut frames).await {
            match next {
                Ok(_) => count += 1,
                Err(error) => return (count, Some(error)),
            }
            tokio::time::sleep(work).await;
        }
        (count, None)
    }

    #[tokio::test(start_paused = true)]
    async fn who_drips_is_cut_once_it_was_waited_for_long_enough() {
        let (count, error) = parts(dripping(1, Duration::from_secs(1)), Duration::ZERO).await;
        assert_eq!(error.unwrap().kind(), ErrorKind::TimedOut);
        assert!((25..=30).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_fast_enough_is_never_cut() {
        let (count, error) = parts(dripping(11, Duration::from_secs(1)), Duration::ZERO).await;
        assert_eq!((count, error.map(|error| error.kind())), (1000, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_service_takes_does_not_count() {
        let frames = dripping(1, Duration::from_millis(50));
        let (count, error) = parts(frames, Duration::from_secs(60)).await;
        assert_eq!((count, error.map(|error| error.kind())), (1000, None));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_still_is_cut() {
        let frames = dripping(1_000_000, IDLE * 2);
        let (count, error) = parts(frames, Duration::ZERO).await;
        assert_eq!(count, 0);
        assert_eq!(error.unwrap().kind(), ErrorKind::TimedOut);
    }
}
