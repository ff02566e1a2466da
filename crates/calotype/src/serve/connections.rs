//! Connections: how many there are, and how long one may do nothing.
//!
//! What hyper leaves open is closed here: it does not end a connection that is silent between two requests, nor one whose
//! client does not read. The first is timed by the connection's own clock, which stands still while a request is worked at.
//! The second is the kernel's: `TCP_USER_TIMEOUT` ends a connection whose peer has acknowledged nothing, or has had no room, for
//! so long (tcp(7)), however full the buffers between are.
//!
//! Beyond the bound a connection is still taken, up to a reserve, and soon closed: it can ask whether the service lives, and
//! everything else is refused with 503. Beyond the reserve it is closed at once.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready as wait};
use std::time::Duration;

use axum_server::accept::Accept;
use bytes::Buf;
use calotype_api::load::Crowded;
use calotype_api::ops;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

/// Connections that are taken beyond the bound.
const RESERVE: usize = 64;
/// How long one of these may be silent.
const RESERVED_FOR: Duration = Duration::from_secs(5);

/// How long a connection may do nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// Until the end of a request's head, from its first byte on; of the first request, from the connection's start on.
    pub(super) header: Duration,
    /// Between two requests.
    pub(super) keep_alive: Duration,
    /// While there is something for the client to read.
    pub(super) unread: Duration,
}

/// Takes connections.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    timeouts: Timeouts,
    most: usize,
    open: Arc<AtomicUsize>,
}

impl Connections {
    /// At most so many.
    pub(super) fn new(most: usize, timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            most,
            open: Arc::default(),
        }
    }

    /// The descriptors that so many connections need: each may read or write an image's bytes.
    pub(super) fn descriptors(most: usize) -> u64 {
        let needed = most.saturating_mul(2).saturating_add(RESERVE);
        u64::try_from(needed).unwrap_or(u64::MAX)
    }

    /// The connections that so many descriptors are enough for.
    pub(super) fn within(descriptors: u64) -> usize {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        (descriptors.saturating_sub(RESERVE) / 2).max(1)
    }
}

impl<S> Accept<TcpStream, S> for Connections {
    type Stream = Watched;
    type Service = Served<S>;
    type Future = Ready<io::Result<(Watched, Served<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let place = Place::take(&self.open);
        if place.number > self.most.saturating_add(RESERVE) {
            ops::refused("connections");
            return ready(Err(io::Error::other("there are too many connections")));
        }
        ready(self.take(stream, service, place))
    }
}

impl Connections {
    fn take<S>(
        &self,
        stream: TcpStream,
        service: S,
        place: Place,
    ) -> io::Result<(Watched, Served<S>)> {
        stream.set_nodelay(true)?;
        let unread = self.timeouts.unread.as_millis();
        set_tcp_user_timeout(&stream, u32::try_from(unread).unwrap_or(u32::MAX))?;
        let crowded = place.number > self.most;
        let mut timeouts = self.timeouts;
        if crowded {
            timeouts.header = timeouts.header.min(RESERVED_FOR);
            timeouts.keep_alive = timeouts.keep_alive.min(RESERVED_FOR);
        }
        let work = Arc::new(Work::default());
        let served = Served {
            service,
            work: Arc::clone(&work),
            crowded,
        };
        let watched = Watched {
            stream,
            timeouts,
            work,
            silent_since: Instant::now(),
            head: true,
            broken: false,
            alarm: None,
            _place: place,
            _counted: ops::connected(),
        };
        Ok((watched, served))
    }
}

/// One of the connections that are open.
#[derive(Debug)]
struct Place {
    number: usize,
    open: Arc<AtomicUsize>,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        Self {
            number: open.fetch_add(1, Ordering::Relaxed) + 1,
            open: Arc::clone(open),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection's requests tell its stream.
#[derive(Debug, Default)]
struct Work {
    requests: AtomicUsize,
    /// A request has ended since the stream looked.
    ended: AtomicBool,
}

/// A request that is worked at, until its answer has been given to the connection.
#[derive(Debug)]
struct AtWork(Arc<Work>);

impl AtWork {
    fn begin(work: &Arc<Work>) -> Self {
        work.requests.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(work))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection that ends itself when it has done nothing for too long.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    timeouts: Timeouts,
    work: Arc<Work>,
    silent_since: Instant,
    /// A head is being read, or the first one is waited for.
    head: bool,
    broken: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    _place: Place,
    _counted: ops::Connected,
}

impl Watched {
    fn is_silent(&mut self) -> bool {
        if self.work.requests.load(Ordering::Acquire) > 0 {
            return false;
        }
        if self.work.ended.swap(false, Ordering::AcqRel) {
            self.silent_since = Instant::now();
            self.head = false;
        }
        true
    }

    fn note_read(&mut self) {
        if self.is_silent() && !self.head {
            self.head = true;
            self.silent_since = Instant::now();
        }
    }

    /// Ready when the connection has been silent for too long. Asked where there is nothing to be read.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.is_silent() {
            return Poll::Pending;
        }
        let patience = match self.head {
            true => self.timeouts.header,
            false => self.timeouts.keep_alive,
        };
        let deadline = self.silent_since + patience;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        wait!(alarm.as_mut().poll(context));
        ops::cut(if self.head { "header" } else { "idle" });
        Poll::Ready(io::Error::from(io::ErrorKind::TimedOut))
    }

    fn note_written(&mut self, written: &io::Result<usize>) {
        match written {
            Ok(0) => {}
            // What is left of an answer that has ended: its client reads.
            Ok(_) => {
                if self.is_silent() && !self.head {
                    self.silent_since = Instant::now();
                }
            }
            Err(error) => self.note_broken(error),
        }
    }

    /// The kernel has given the client up.
    fn note_broken(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut && !self.broken {
            self.broken = true;
            ops::cut("stalled_reader");
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                if let Err(error) = &read {
                    self.note_broken(error);
                } else if buffer.filled().len() > filled {
                    self.note_read();
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_alarm(context).map(Err),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = wait!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.note_written(&written);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = wait!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces));
        self.note_written(&written);
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub(super) struct Served<S> {
    service: S,
    work: Arc<Work>,
    crowded: bool,
}

impl<S, B, R> Service<Request<R>> for Served<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answered<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let at_work = AtWork::begin(&self.work);
        let crowded = self.crowded;
        if crowded {
            request.extensions_mut().insert(Crowded);
        }
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if crowded {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(answer.map(|body| Answered {
                body,
                _at_work: at_work,
            }))
        })
    }
}

/// An answer's body, whose request is worked at as long as it is there.
#[derive(Debug)]
pub(super) struct Answered<B> {
    body: B,
    _at_work: AtWork,
}

impl<B: Body<Data: Buf> + Unpin> Body for Answered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
