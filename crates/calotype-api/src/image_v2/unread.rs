//! What an upload that was refused has not read.

use axum::body::{Body, BodyDataStream};
use calotype_core::ports::ByteStream;
use futures_util::stream;
use http::{HeaderMap, header};
use tokio::sync::oneshot;

use crate::load::{LONGEST, Pace, read_off};

/// A body that is lent to the upload, and comes back when the upload drops it before its end.
struct Lent {
    frames: Option<BodyDataStream>,
    begun: bool,
    back: Option<oneshot::Sender<Rest>>,
}

struct Rest {
    frames: BodyDataStream,
    begun: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(frames), Some(back)) = (self.frames.take(), self.back.take()) {
            let begun = self.begun;
            // Nobody may want it: then the connection ends with it.
            let _ = back.send(Rest { frames, begun });
        }
    }
}

/// What an upload leaves of its body.
pub(super) struct Unread {
    rest: oneshot::Receiver<Rest>,
    /// The client sends nothing before it is told to go on.
    waits: bool,
}

/// The body as the bytes of an image, and what will be left of it. The bytes end with an error where the client
/// breaks off, or is slower than `pace`.
pub(super) fn lend(headers: &HeaderMap, body: Body, pace: Pace) -> (ByteStream, Unread) {
    let (back, rest) = oneshot::channel();
    let lent = Lent {
        frames: Some(body.into_data_stream()),
        begun: false,
        back: Some(back),
    };
    let bytes = stream::unfold((lent, pace), |(mut lent, mut pace)| async move {
        lent.begun = true;
        let next = pace.next(lent.frames.as_mut()?).await;
        if !matches!(next, Some(Ok(_))) {
            // At its end, or broken: nothing is left to be read.
            lent.frames = None;
        }
        next.map(|frame| (frame, (lent, pace)))
    });
    let waits = headers.contains_key(header::EXPECT);
    (Box::pin(bytes), Unread { rest, waits })
}

impl Unread {
    /// Reads what the refused client still sends, within bounds, and throws it away. The upload must have dropped
    /// the bytes.
    pub(super) async fn throw_away(mut self) {
        let Ok(Rest { mut frames, begun }) = self.rest.try_recv() else {
            return;
        };
        if self.waits && !begun {
            return;
        }
        read_off(&mut frames, LONGEST).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::StreamExt as _;
    use http::HeaderValue;

    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(60), None)
    }

    /// A body of three parts, and how many of them were read.
    fn body() -> (Body, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&read);
        let parts = stream::iter(["a", "b", "c"]).map(move |part| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))
        });
        (Body::from_stream(parts), read)
    }

    #[tokio::test]
    async fn what_a_failed_upload_left_is_read_to_its_end() {
        let (body, read) = body();
        let (mut bytes, unread) = lend(&HeaderMap::new(), body, pace());
        assert_eq!(bytes.next().await.unwrap().unwrap(), "a");
        drop(bytes);
        unread.throw_away().await;
        assert_eq!(read.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_told_to_go_on_is_not_told_so() {
        let (body, read) = body();
        let headers =
            HeaderMap::from_iter([(header::EXPECT, HeaderValue::from_static("100-continue"))]);
        let (bytes, unread) = lend(&headers, body, pace());
        drop(bytes);
        unread.throw_away().await;
        assert_eq!(read.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_body_that_was_read_to_its_end_is_over() {
        let (body, read) = body();
        let (bytes, unread) = lend(&HeaderMap::new(), body, pace());
        assert_eq!(bytes.count().await, 3);
        unread.throw_away().await;
        assert_eq!(read.load(Ordering::Relaxed), 3);
    }
}
