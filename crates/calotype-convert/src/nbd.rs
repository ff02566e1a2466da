//! A disk as an NBD device that can't be written, on one connection (the protocol's `doc/proto.md`).
//!
//! The client is a tool that may have turned against us: what it sends is bounded, understood or refused, and nothing that it
//! asks for is outside of the one disk. Of the protocol there is what QEMU's client uses: the fixed newstyle negotiation,
//! structured replies, and the status of blocks, so that what is known to be zeros is not read.
//!
//! # Memory
//! [`AT_ONCE`] requests are answered at the same time; each holds what its stream has read ahead, some MiB.

mod negotiation;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use calotype_core::inspect::Verified;
use calotype_core::ports::ResealProgress;
use calotype_core::{Error, Result};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

/// Requests that are answered at the same time: as many as qemu-img has on their way.
const AT_ONCE: usize = 16;

/// The most bytes that a request may ask for at once: what QEMU's own limit is.
const LONGEST: u32 = 32 << 20;

/// Extents that one answer names at most.
const MOST_EXTENTS: usize = 256;

const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x668e_33ef;

const READ: u16 = 0;
const DISCONNECT: u16 = 2;
const BLOCK_STATUS: u16 = 7;

const ONE_EXTENT: u16 = 1 << 3;
const DONE: u16 = 1;
const NOTHING: u16 = 0;
const DATA: u16 = 1;
const HOLE: u16 = 2;
const STATUS: u16 = 5;
const FAILED: u16 = 1 << 15 | 1;

const HOLE_OF_ZEROS: u32 = 1 | 2;

const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// What the client asks for.
#[derive(Debug, Clone, Copy)]
struct Request {
    flags: u16,
    kind: u16,
    cookie: u64,
    from: u64,
    length: u32,
}

/// Serves the disk until the client ends the connection.
///
/// # Errors
/// What reading the disk said first. That a client leaves or talks nonsense is none: how it ends says the rest.
pub(crate) async fn serve(
    socket: UnixStream,
    disk: &Verified,
    progress: &ResealProgress,
) -> Result<()> {
    let (read, write) = socket.into_split();
    let server = Server {
        disk,
        progress: &progress.done,
        write: tokio::sync::Mutex::new(write),
        fault: Mutex::new(None),
    };
    let mut read = BufReader::new(read);
    let spoken = async {
        {
            let mut write = server.write.lock().await;
            if !negotiation::agree(&mut read, &mut *write, disk.size()).await? {
                return Ok(());
            }
        }
        server.answer_all(&mut read).await
    };
    if let Err(error) = spoken.await {
        tracing::debug!(%error, "the converter's connection ended");
    }
    let fault = server.fault.into_inner();
    match fault.unwrap_or_else(PoisonError::into_inner) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

struct Server<'a> {
    disk: &'a Verified,
    progress: &'a AtomicU64,
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    fault: Mutex<Option<Error>>,
}

impl Server<'_> {
    async fn answer_all(
        &self,
        read: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
    ) -> io::Result<()> {
        let mut answers = FuturesUnordered::new();
        // Kept from turn to turn: a request that is half read must not be lost when an answer is done.
        let mut next = Box::pin(next_request(read));
        loop {
            let full = answers.len() >= AT_ONCE;
            tokio::select! {
                Some(answered) = answers.next(), if !answers.is_empty() => answered?,
                request = &mut next, if !full => {
                    let (request, read) = request?;
                    if request.kind == DISCONNECT {
                        break;
                    }
                    answers.push(self.answer(request));
                    next = Box::pin(next_request(read));
                }
            }
        }
        answers.try_collect::<()>().await
    }

    async fn answer(&self, request: Request) -> io::Result<()> {
        let end = request.from.checked_add(u64::from(request.length));
        let within = end.filter(|end| *end <= self.disk.size().bytes());
        let Some(end) = within.filter(|_| request.length > 0) else {
            return self.refuse(request, EINVAL).await;
        };
        match request.kind {
            READ if request.length <= LONGEST => self.read(request, end).await?,
            BLOCK_STATUS => self.tell_extents(request, end).await?,
            _ => return self.refuse(request, EINVAL).await,
        }
        self.progress.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    async fn read(&self, request: Request, end: u64) -> io::Result<()> {
        let mut at = request.from;
        while at < end {
            let extent = self.disk.extent(at);
            let to = extent.end.min(end);
            if extent.zeros {
                let mut hole = at.to_be_bytes().to_vec();
                // Within a request, so 32 bits hold it.
                hole.extend(u32::try_from(to - at).unwrap_or(u32::MAX).to_be_bytes());
                self.send(request, 0, HOLE, &hole, Bytes::new()).await?;
                at = to;
                continue;
            }
            let mut pieces = self.disk.read(at..to);
            loop {
                match pieces.try_next().await {
                    Ok(Some(piece)) => {
                        let place = at.to_be_bytes();
                        at += piece.len() as u64;
                        self.send(request, 0, DATA, &place, piece).await?;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.note(error);
                        return self.refuse(request, EIO).await;
                    }
                }
            }
        }
        self.send(request, DONE, NOTHING, &[], Bytes::new()).await
    }

    async fn tell_extents(&self, request: Request, end: u64) -> io::Result<()> {
        let most = match request.flags & ONE_EXTENT {
            0 => MOST_EXTENTS,
            _ => 1,
        };
        let mut told = negotiation::ALLOCATION_ID.to_be_bytes().to_vec();
        let mut at = request.from;
        for _ in 0..most {
            if at >= end {
                break;
            }
            let extent = self.disk.extent(at);
            let to = extent.end.min(end);
            let flags = if extent.zeros { HOLE_OF_ZEROS } else { 0 };
            told.extend(u32::try_from(to - at).unwrap_or(u32::MAX).to_be_bytes());
            told.extend(flags.to_be_bytes());
            at = to;
        }
        self.send(request, DONE, STATUS, &told, Bytes::new()).await
    }

    async fn refuse(&self, request: Request, errno: u32) -> io::Result<()> {
        let mut told = errno.to_be_bytes().to_vec();
        // Without a text.
        told.extend(0_u16.to_be_bytes());
        self.send(request, DONE, FAILED, &told, Bytes::new()).await
    }

    /// Sends one chunk of an answer, whole.
    async fn send(
        &self,
        request: Request,
        flags: u16,
        kind: u16,
        head: &[u8],
        body: Bytes,
    ) -> io::Result<()> {
        let length = u32::try_from(head.len() + body.len()).map_err(io::Error::other)?;
        let mut chunk = Vec::with_capacity(20 + head.len());
        chunk.extend(REPLY.to_be_bytes());
        chunk.extend(flags.to_be_bytes());
        chunk.extend(kind.to_be_bytes());
        chunk.extend(request.cookie.to_be_bytes());
        chunk.extend(length.to_be_bytes());
        chunk.extend(head);
        let mut chunk = bytes::Buf::chain(&chunk[..], body);
        let mut write = self.write.lock().await;
        write.write_all_buf(&mut chunk).await
    }

    fn note(&self, error: Error) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(error);
    }
}

/// The next request, and the connection back.
async fn next_request<R: tokio::io::AsyncRead + Unpin>(
    read: &mut R,
) -> io::Result<(Request, &mut R)> {
    let magic = read.read_u32().await?;
    if magic != REQUEST {
        return Err(io::Error::other("no request"));
    }
    let request = Request {
        flags: read.read_u16().await?,
        kind: read.read_u16().await?,
        cookie: read.read_u64().await?,
        from: read.read_u64().await?,
        length: read.read_u32().await?,
    };
    Ok((request, read))
}

#[cfg(test)]
mod tests;
