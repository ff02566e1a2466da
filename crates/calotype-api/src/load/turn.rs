//! A request's place among those that are worked at.
//!
//! A request whose body is still to come is not worked at: who sends a body slowly, or none, holds a connection and nothing
//! else. Its place is given back while the service waits for its client, and taken again before it goes on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The place of one request.
#[derive(Debug, Clone)]
pub(crate) struct RequestTurn {
    place: Arc<Mutex<Place>>,
}

#[derive(Debug)]
enum Place {
    Held {
        _permit: OwnedSemaphorePermit,
    },
    /// Given back until the client has sent more.
    Lent,
    /// Given back for good.
    Over,
}

impl RequestTurn {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        let place = Place::Held { _permit: permit };
        Self {
            place: Arc::new(Mutex::new(place)),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the place back for good.
    pub(crate) fn give_back(&self) {
        *self.place() = Place::Over;
    }

    fn lend(&self) {
        let mut place = self.place();
        if matches!(*place, Place::Held { .. }) {
            *place = Place::Lent;
        }
    }

    fn is_lent(&self) -> bool {
        matches!(*self.place(), Place::Lent)
    }

    fn take_again(&self, permit: OwnedSemaphorePermit) {
        let mut place = self.place();
        if matches!(*place, Place::Lent) {
            *place = Place::Held { _permit: permit };
        }
    }
}

type Next = Option<Result<Frame<Bytes>, axum::Error>>;

/// A body that lends its request's place while it is waited for.
pub(super) struct LendingBody {
    body: Body,
    turn: RequestTurn,
    requests: Arc<Semaphore>,
    /// What has come, and waits for the place.
    next: Option<Next>,
    place: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
}

impl LendingBody {
    pub(super) fn wrap(body: Body, turn: &RequestTurn, requests: &Arc<Semaphore>) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        Body::new(Self {
            body,
            turn: turn.clone(),
            requests: Arc::clone(requests),
            next: None,
            place: None,
        })
    }

    fn poll_place(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let requests = &self.requests;
        let place = self
            .place
            .get_or_insert_with(|| Box::pin(Arc::clone(requests).acquire_owned()));
        let permit = ready!(place.as_mut().poll(context));
        self.place = None;
        // Nobody closes the semaphore.
        if let Ok(permit) = permit {
            self.turn.take_again(permit);
        }
        Poll::Ready(())
    }
}

impl http_body::Body for LendingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Next> {
        if self.next.is_none() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(next) => self.next = Some(next),
                Poll::Pending => {
                    self.turn.lend();
                    return Poll::Pending;
                }
            }
        }
        if self.turn.is_lent() {
            ready!(self.poll_place(context));
        }
        Poll::Ready(self.next.take().flatten())
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.next {
            None => self.body.size_hint(),
            // Nothing is promised of what was taken out already.
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_place_is_lent_while_the_client_is_waited_for() {
        let requests = Arc::new(Semaphore::new(1));
        let take = || Arc::clone(&requests).try_acquire_owned();
        let turn = RequestTurn::new(take().unwrap());
        let (send, receive) = mpsc::unbounded_channel::<&'static str>();
        let parts = stream::unfold(receive, |mut receive| async move {
            let part = receive.recv().await?;
            Some((
                Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())),
                receive,
            ))
        });
        let body = LendingBody::wrap(Body::from_stream(parts), &turn, &requests);
        let mut body = body.into_data_stream();
        send.send("a").unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "a");
        assert!(take().is_err(), "nothing was waited for yet");
        assert!(body.next().now_or_never().is_none());
        let other = take().expect("the place is free");
        send.send("b").unwrap();
        assert!(
            body.next().now_or_never().is_none(),
            "another has the place"
        );
        drop(other);
        assert_eq!(body.next().await.unwrap().unwrap(), "b");
        assert!(take().is_err(), "it is taken again");
        turn.give_back();
        drop(send);
        assert!(body.next().await.is_none());
        assert!(take().is_ok());
    }
}
