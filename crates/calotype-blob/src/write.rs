//! Writing a blob: a pipeline from the caller's stream to the store.
//!
//! ```text
//!            ┌─> md5 ────────┐
//! stream ─> pieces ─> sha512 ├─> manifest ─> commit
//!            └─> sealing ─> store
//! ```
//! Pieces of 1 MiB are shared, not copied. Each digest and the sealing have a thread of their own; taking
//! the stream and the store's calls happen in the caller's future. Every queue is short: one write holds
//! about ten pieces.
//!
//! # Cancellation
//! Dropping the future closes the queues, and the threads end at their next piece. What was staged stays
//! for `discard`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use calotype_core::id::BlobId;
use calotype_core::image::Digests;
use calotype_core::ports::{BlobFacts, ByteStream, WrappedKey, WriteOptions};
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind, Result};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::digest::Digesting;
use crate::manifest::{MAX_SEGMENTS, Manifest, Pages, SealedSegment};
use crate::outgoing::Outgoing;
use crate::seal::{BlobKeys, PAGE, SegmentSealer, SegmentSize};
use crate::store::{SegmentWriter, Staged};
use crate::threads;

/// Bytes of plaintext in a piece: a whole number of pages.
pub(crate) const PIECE: usize = 16 * PAGE;

/// A page of zeros, to compare with.
static ZEROS: [u8; PAGE] = [0; PAGE];

/// What a write is about.
pub(crate) struct Plan {
    pub(crate) blob: BlobId,
    pub(crate) keys: Arc<BlobKeys>,
    pub(crate) wrapped: WrappedKey,
    pub(crate) size: SegmentSize,
    /// Pieces in each queue.
    pub(crate) depth: usize,
}

/// A piece of plaintext: a full one, or the last.
struct Piece {
    bytes: Bytes,
    last: bool,
}

/// What comes from sealing.
enum Sealed {
    /// Stored bytes, in order.
    Bytes(u32, Bytes),
    /// A segment is complete.
    Segment(SealedSegment),
    /// All of it is sealed.
    End,
}

/// Takes all of `source` into `staged` and commits it.
pub(crate) async fn write(
    plan: Plan,
    source: ByteStream,
    options: &WriteOptions,
    staged: &Arc<dyn Staged>,
) -> Result<BlobFacts> {
    let digesting = Digesting::start(options.digests, plan.depth)?;
    let (pieces, to_seal) = mpsc::channel(plan.depth);
    let (sealed, mut to_store) = mpsc::channel(plan.depth);
    let mut sealing = Sealing::new(&plan);
    threads::spawn("blob-seal", move || sealing.run(to_seal, &sealed))?;

    let take = take(source, options, plan.size, digesting, pieces);
    let (taken, segments) = tokio::try_join!(take, store(&mut to_store, staged))?;
    let manifest = Manifest {
        blob: plan.blob,
        wrapped: plan.wrapped,
        size: plan.size,
        plaintext: taken.bytes,
        digests: taken.digests,
        segments,
    };
    let encoded = Bytes::from(manifest.encode(&plan.keys).map_err(Error::internal)?);
    let facts = manifest.facts(encoded.len());
    staged.commit(encoded).await?;
    Ok(facts)
}

struct Taken {
    bytes: u64,
    digests: Digests,
}

/// Takes the stream, cuts it into pieces and hands them on.
async fn take(
    mut source: ByteStream,
    options: &WriteOptions,
    size: SegmentSize,
    digesting: Digesting,
    pieces: mpsc::Sender<Piece>,
) -> Result<Taken> {
    let limits = Limits::new(options, size);
    let mut taken = 0_u64;
    let mut gathered = BytesMut::new();
    // A piece is handed on when it is known whether more comes: the last page is sealed as the last.
    let mut held: Option<Bytes> = None;
    while let Some(chunk) = source.next().await {
        let mut chunk = chunk?;
        taken = taken.saturating_add(chunk.len() as u64);
        limits.check(taken)?;
        options.progress.store(taken, Ordering::Relaxed);
        while !chunk.is_empty() {
            let piece = if gathered.is_empty() && chunk.len() >= PIECE {
                chunk.split_to(PIECE)
            } else {
                if gathered.is_empty() {
                    gathered.reserve(PIECE);
                }
                let part = chunk.split_to(chunk.len().min(PIECE - gathered.len()));
                gathered.extend_from_slice(&part);
                if gathered.len() < PIECE {
                    continue;
                }
                gathered.split().freeze()
            };
            if let Some(bytes) = held.replace(piece) {
                hand_on(&digesting, &pieces, Piece { bytes, last: false }).await?;
            }
        }
    }
    limits.check_end(taken)?;
    let rest = gathered.freeze();
    if rest.is_empty() {
        if let Some(bytes) = held {
            hand_on(&digesting, &pieces, Piece { bytes, last: true }).await?;
        }
    } else {
        if let Some(bytes) = held {
            hand_on(&digesting, &pieces, Piece { bytes, last: false }).await?;
        }
        let piece = Piece {
            bytes: rest,
            last: true,
        };
        hand_on(&digesting, &pieces, piece).await?;
    }
    drop(pieces);
    Ok(Taken {
        bytes: taken,
        digests: digesting.finish().await?,
    })
}

async fn hand_on(digesting: &Digesting, pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<()> {
    digesting.push(&piece.bytes).await?;
    pieces
        .send(piece)
        .await
        .map_err(|_| Error::internal("the sealing thread ended early"))
}

/// How much plaintext may and must come.
struct Limits {
    most: u64,
    expected: Option<u64>,
}

impl Limits {
    fn new(options: &WriteOptions, size: SegmentSize) -> Self {
        Self {
            most: options.max_size.bytes().min(MAX_SEGMENTS * size.bytes()),
            expected: options.expected_size.map(ByteSize::bytes),
        }
    }

    fn check(&self, taken: u64) -> Result<()> {
        if taken > self.most {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("The image is larger than {} bytes.", self.most),
            ));
        }
        match self.expected {
            Some(expected) if taken > expected => Err(Error::invalid(format!(
                "More than the announced {expected} bytes came."
            ))),
            _ => Ok(()),
        }
    }

    fn check_end(&self, taken: u64) -> Result<()> {
        match self.expected {
            Some(expected) if taken != expected => Err(Error::invalid(format!(
                "{taken} bytes came of the announced {expected}."
            ))),
            _ => Ok(()),
        }
    }
}

/// Gives the store what was sealed, and gathers the manifest's segments.
async fn store(
    sealed: &mut mpsc::Receiver<Result<Sealed>>,
    staged: &Arc<dyn Staged>,
) -> Result<Vec<SealedSegment>> {
    let mut segments = Vec::new();
    let mut writer: Option<Box<dyn SegmentWriter>> = None;
    let mut syncing = Syncing::default();
    while let Some(next) = sealed.recv().await {
        match next? {
            Sealed::Bytes(index, bytes) => {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => writer.insert(staged.segment(index)?),
                };
                writer.append(bytes).await?;
            }
            Sealed::Segment(segment) => {
                if let Some(mut writer) = writer.take() {
                    writer.finish().await?;
                }
                segments.push(segment);
                syncing.begin(staged).await?;
            }
            Sealed::End => {
                syncing.end().await?;
                return Ok(segments);
            }
        }
    }
    // Also where the pieces ended without a last one: then `take` has failed, and says why.
    Err(Error::internal("the sealing thread ended early"))
}

/// A sync in the background: the device works while the next segment is sealed, so that the sync of the commit is
/// short.
#[derive(Default)]
struct Syncing(Option<JoinHandle<Result<()>>>);

impl Syncing {
    /// Begins one. If one is still on, the device is the bottleneck and gets no second order.
    async fn begin(&mut self, staged: &Arc<dyn Staged>) -> Result<()> {
        if self.0.as_ref().is_some_and(|sync| !sync.is_finished()) {
            return Ok(());
        }
        self.end().await?;
        let staged = Arc::clone(staged);
        self.0 = Some(tokio::spawn(
            async move { staged.checkpoint(Vec::new()).await },
        ));
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        match self.0.take() {
            Some(sync) => sync.await.map_err(Error::internal)?,
            None => Ok(()),
        }
    }
}

/// The sealing thread's state.
struct Sealing {
    blob: BlobId,
    keys: Arc<BlobKeys>,
    size: SegmentSize,
    /// The place of the next page.
    index: u32,
    position: u32,
    /// The current segment, from its first page that is not zeros.
    sealer: Option<SegmentSealer>,
    present: Vec<u8>,
    outgoing: Outgoing,
}

impl Sealing {
    fn new(plan: &Plan) -> Self {
        Self {
            blob: plan.blob,
            keys: Arc::clone(&plan.keys),
            size: plan.size,
            index: 0,
            position: 0,
            sealer: None,
            present: Vec::new(),
            outgoing: Outgoing::new(plan.depth),
        }
    }

    fn run(&mut self, mut pieces: mpsc::Receiver<Piece>, sealed: &mpsc::Sender<Result<Sealed>>) {
        let mut send = |result| sealed.blocking_send(result).is_ok();
        let mut any = false;
        let mut complete = false;
        while let Some(piece) = pieces.blocking_recv() {
            (any, complete) = (true, piece.last);
            match self.seal_piece(&piece, &mut send) {
                // Nobody listens any more.
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => {
                    send(Err(error));
                    return;
                }
            }
        }
        // No piece at all is an empty blob or a source that failed at once, and `take` knows which; but
        // pieces without a last one are a write that was given up.
        if complete || !any {
            send(Ok(Sealed::End));
        }
    }

    /// Seals a piece. False where nobody listens any more.
    fn seal_piece(
        &mut self,
        piece: &Piece,
        send: &mut dyn FnMut(Result<Sealed>) -> bool,
    ) -> Result<bool> {
        let pages = piece.bytes.len().div_ceil(PAGE);
        for (number, page) in piece.bytes.chunks(PAGE).enumerate() {
            let ends_blob = piece.last && number + 1 == pages;
            let ends_segment = ends_blob || self.position + 1 == self.size.pages();
            if page != &ZEROS[..page.len()]
                && let Some(bytes) = self.seal_page(page, ends_segment)?
                && !send(Ok(Sealed::Bytes(self.index, bytes)))
            {
                return Ok(false);
            }
            self.position += 1;
            if ends_segment {
                if let Some(bytes) = self.outgoing.end()
                    && !send(Ok(Sealed::Bytes(self.index, bytes)))
                {
                    return Ok(false);
                }
                if let Some(segment) = self.end_segment()
                    && !send(Ok(Sealed::Segment(segment)))
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Seals the page at the current position. What is complete of the segment's bytes with it.
    fn seal_page(&mut self, page: &[u8], last: bool) -> Result<Option<Bytes>> {
        let sealer = match &mut self.sealer {
            Some(sealer) => sealer,
            None => self.sealer.insert(SegmentSealer::begin(
                &self.keys, self.blob, self.size, self.index,
            )?),
        };
        let byte = self.position as usize / 8;
        if self.present.len() <= byte {
            self.present.resize(byte + 1, 0);
        }
        self.present[byte] |= 1 << (self.position % 8);
        let length = sealer.seal(self.position, last, page, self.outgoing.page())?;
        Ok(self.outgoing.add(length))
    }

    /// Ends the segment at the current position. Nothing where all of it was zeros.
    fn end_segment(&mut self) -> Option<SealedSegment> {
        let (index, count) = (self.index, self.position);
        self.index += 1;
        self.position = 0;
        let mut present = std::mem::take(&mut self.present);
        let sealer = self.sealer.take()?;
        present.resize(count.div_ceil(8) as usize, 0);
        let pages = Pages::Some(present.into());
        Some(SealedSegment {
            index,
            header: *sealer.header(),
            pages: if pages.before(count) == count {
                Pages::All
            } else {
                pages
            },
        })
    }
}
