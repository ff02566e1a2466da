//! Resealing: a blob made of another's plaintext, under another data key. And copying, which is the same but for the sealing: every
//! page is verified on its way, and goes out as it came.
//!
//! ```text
//! segment i    read ahead ─> open and seal, page by page ─> write
//! segment i+1  read ahead ─> open and seal, page by page ─> write
//! ```
//! Several segments are on at once, as many as have a turn ([`crate::share`]). Each holds a few pieces of about 1 MiB, so
//! memory is bounded by the turns, not by sizes. Pages of zeros are not stored and not touched; the digests of the
//! plaintext are the source's.
//!
//! # Guarantees
//! A page is verified before it is sealed again, and sealed under a fresh IV and nonce whatever was sealed in its place
//! before. Nothing of a page that does not authenticate is written.
//!
//! # Crash consistency
//! Finished segments are noted at least every second, with the headers that their readers will need, after they are
//! durable. A later attempt begins with those: what is done again is what was finished after the last note, and what
//! was in flight. A crash after the commit leaves the whole target, which the next attempt finds.
//!
//! # Cancellation
//! Dropping the future stops the segments at their next piece. What was noted stays.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use calotype_core::id::{BlobId, ProjectId};
use calotype_core::keys::{KeyFault, KeyRole};
use calotype_core::ports::{BlobFacts, ResealProgress};
use calotype_core::{Error, ErrorKind, Result};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::data_keys::Lease;
use crate::manifest::{Manifest, SealedSegment};
use crate::outgoing::Outgoing;
use crate::read::{self, OpenBlob};
use crate::seal::{BlobKeys, HEADER, PAGE, SEALED_PAGE, SegmentOpener, SegmentSealer, page_bytes};
use crate::share::{Pace, Turns};
use crate::store::{Buffer, Note, SegmentWriter, Slot, Staged, Stored};
use crate::threads::Background;

/// Pages in a piece: as stored they are a little less than 1 MiB, which virtual disks read in one request.
const PIECE_PAGES: usize = 15;

/// The most memory that a segment takes while it is on: two pieces that are read, two runs of blocks that are sealed, and
/// what they are rounded up to.
pub(crate) const SEGMENT_MEMORY: u64 = 6 << 20;

/// How long after a checkpoint the next one begins: as much again is left for the device before a second is over.
const NOTE_INTERVAL: Duration = Duration::from_millis(500);

/// How long after its beginning an attempt notes what is finished for the first time: one that dies young leaves something
/// too. What is done sooner needs no note.
const FIRST_NOTE: Duration = Duration::from_millis(100);

/// What all resealing of this node shares.
pub(crate) struct Flow {
    pub(crate) turns: Turns,
    /// Segments of one reseal that ask for turns at once.
    pub(crate) parallel: usize,
    /// The node's pace.
    pub(crate) pace: Pace,
    /// Bytes a second of one reseal.
    pub(crate) rate: Option<u64>,
    /// Where the bytes are moved.
    pub(crate) background: Background,
}

/// One reseal, or one copy.
pub(crate) struct Plan {
    pub(crate) source: Source,
    /// What the staged bytes are known by.
    pub(crate) target: BlobId,
    pub(crate) making: Making,
    pub(crate) project: ProjectId,
    pub(crate) progress: Arc<ResealProgress>,
}

/// What becomes of the source's pages.
pub(crate) enum Making {
    /// They are sealed again.
    Sealed {
        keys: Box<BlobKeys>,
        /// The right to use the target's data key.
        lease: Lease,
    },
    /// They are verified and copied as they are.
    AsItIs,
}

/// The blob that is read.
pub(crate) enum Source {
    Open(Arc<OpenBlob>),
    /// Its key is not to be had, and so it can only be copied.
    Closed {
        manifest: Manifest,
        stored: Arc<dyn Stored>,
    },
}

impl Source {
    pub(crate) fn manifest(&self) -> &Manifest {
        match self {
            Self::Open(opened) => &opened.manifest,
            Self::Closed { manifest, .. } => manifest,
        }
    }

    pub(crate) fn stored(&self) -> &Arc<dyn Stored> {
        match self {
            Self::Open(opened) => &opened.stored,
            Self::Closed { stored, .. } => stored,
        }
    }

    /// What opens it.
    fn opened(&self) -> Option<&Arc<OpenBlob>> {
        match self {
            Self::Open(opened) => Some(opened),
            Self::Closed { .. } => None,
        }
    }
}

type Header = [u8; HEADER];

/// Makes the target in `staged`, and commits it.
pub(crate) async fn reseal(
    plan: Plan,
    flow: Arc<Flow>,
    staged: Arc<dyn Staged>,
) -> Result<BlobFacts> {
    let manifest = plan.source.manifest();
    let mut headers = noted_headers(staged.noted(), manifest);
    let todo = manifest
        .segments
        .iter()
        .filter(|segment| !headers.contains_key(&segment.index));
    let left: u64 = todo
        .clone()
        .map(|segment| manifest.segment_bytes(segment.index))
        .sum();
    let progress = Arc::clone(&plan.progress);
    for count in [&progress.done, &progress.noted, &progress.resumed] {
        count.store(manifest.plaintext - left, Ordering::Relaxed);
    }
    tracing::info!(
        blob.id = %plan.target, segments.noted = headers.len(), segments.total = manifest.segments.len(), "resealing"
    );

    tracing::debug!(blob.id = %plan.target, segments.found = %listed(headers.keys()), "segments found noted");
    let todo: VecDeque<u32> = todo.map(|segment| segment.index).collect();
    let work = Arc::new(Work {
        pace: Pace::new(flow.rate),
        plan,
        flow,
        staged: Arc::clone(&staged),
        given_up: AtomicBool::new(false),
    });
    let _given_up = GivenUp(Arc::clone(&work));
    let mut noting = Noting::new(Arc::clone(&staged), work.plan.target, progress);
    let sealed = seal_all(&work, todo, &mut headers, &mut noting).await;
    // What is finished is worth keeping, whatever happened.
    let noted = noting.end(sealed.is_err()).await;
    sealed.and(noted)?;

    let plan = &work.plan;
    let manifest = plan.source.manifest();
    let segments = with_headers(&manifest.segments, &headers)?;
    let (facts, encoded) = match &plan.making {
        Making::Sealed { keys, lease } => {
            let target = Manifest {
                blob: plan.target,
                wrapped: lease.wrapped().clone(),
                size: manifest.size,
                plaintext: manifest.plaintext,
                digests: manifest.digests.clone(),
                segments,
            };
            let encoded = Bytes::from(target.encode(keys).map_err(Error::internal)?);
            (target.facts(encoded.len()), encoded)
        }
        Making::AsItIs => {
            let encoded = plan.source.stored().manifest().clone();
            (manifest.facts(encoded.len()), encoded)
        }
    };
    staged.commit(encoded).await?;
    Ok(facts)
}

/// Segments' indices, for the log.
fn listed<'a>(indices: impl Iterator<Item = &'a u32>) -> String {
    let texts: Vec<String> = indices.map(u32::to_string).collect();
    texts.join(",")
}

/// The headers of the segments that an earlier attempt finished.
fn noted_headers(notes: &[Note], manifest: &Manifest) -> BTreeMap<u32, Header> {
    let known = |note: &Note| {
        let header = Header::try_from(note.bytes.as_ref()).ok()?;
        manifest.segment(note.index)?;
        Some((note.index, header))
    };
    notes.iter().filter_map(known).collect()
}

fn with_headers(
    segments: &[SealedSegment],
    headers: &BTreeMap<u32, Header>,
) -> Result<Vec<SealedSegment>> {
    let with_header = |segment: &SealedSegment| {
        let header = headers
            .get(&segment.index)
            .ok_or_else(|| Error::internal("a segment was not resealed"))?;
        Ok(SealedSegment {
            index: segment.index,
            header: *header,
            pages: segment.pages.clone(),
        })
    };
    segments.iter().map(with_header).collect()
}

/// Reseals the segments that are left, several at once.
async fn seal_all(
    work: &Arc<Work>,
    mut todo: VecDeque<u32>,
    headers: &mut BTreeMap<u32, Header>,
    noting: &mut Noting,
) -> Result<()> {
    let mut running = JoinSet::new();
    loop {
        while running.len() < work.flow.parallel
            && let Some(index) = todo.pop_front()
        {
            let work = Arc::clone(work);
            running.spawn(async move { work.segment(index).await.map(|header| (index, header)) });
        }
        tokio::select! {
            ended = running.join_next() => {
                let Some(ended) = ended else { return Ok(()) };
                let (index, header) = ended.map_err(Error::internal)??;
                tracing::debug!(blob.id = %work.plan.target, segment.index = index, "segment resealed");
                headers.insert(index, header);
                let bytes = work.plan.source.manifest().segment_bytes(index);
                noting.add(index, header, bytes);
            }
            noted = noting.turn() => noted?,
        }
    }
}

/// Notes finished segments from time to time, beside the work.
struct Noting {
    staged: Arc<dyn Staged>,
    target: BlobId,
    progress: Arc<ResealProgress>,
    finished: Vec<Note>,
    /// Bytes of plaintext in them.
    bytes: u64,
    /// A checkpoint that is on.
    on: Option<JoinHandle<Result<()>>>,
    next: Instant,
}

impl Noting {
    fn new(staged: Arc<dyn Staged>, target: BlobId, progress: Arc<ResealProgress>) -> Self {
        Self {
            staged,
            target,
            progress,
            finished: Vec::new(),
            bytes: 0,
            on: None,
            next: Instant::now() + FIRST_NOTE,
        }
    }

    fn add(&mut self, index: u32, header: Header, bytes: u64) {
        self.bytes += bytes;
        self.finished.push(Note {
            index,
            bytes: Bytes::copy_from_slice(&header),
        });
    }

    /// Ends the checkpoint that is on, or begins the next when it is time. May be dropped at any point.
    async fn turn(&mut self) -> Result<()> {
        if let Some(on) = &mut self.on {
            let noted = on.await;
            self.on = None;
            return noted.map_err(Error::internal)?;
        }
        if self.finished.is_empty() {
            // Asked again when a segment is finished.
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.next).await;
        self.next = Instant::now() + NOTE_INTERVAL;
        self.begin();
        Ok(())
    }

    fn begin(&mut self) {
        if self.finished.is_empty() {
            return;
        }
        let (staged, progress) = (Arc::clone(&self.staged), Arc::clone(&self.progress));
        let (notes, bytes) = (
            std::mem::take(&mut self.finished),
            std::mem::take(&mut self.bytes),
        );
        let target = self.target;
        self.on = Some(tokio::spawn(async move {
            let indices = listed(notes.iter().map(|note| &note.index));
            staged.checkpoint(notes).await?;
            progress.noted.fetch_add(bytes, Ordering::Relaxed);
            tracing::debug!(blob.id = %target, segments.noted = %indices, "segments noted");
            Ok(())
        }));
    }

    /// Ends the checkpoint that is on, and notes the rest if there will be no commit.
    async fn end(mut self, note_the_rest: bool) -> Result<()> {
        if self.on.is_some() {
            self.turn().await?;
        }
        if note_the_rest {
            self.begin();
            if self.on.is_some() {
                return self.turn().await;
            }
        }
        Ok(())
    }
}

/// What the segments of a reseal share.
struct Work {
    plan: Plan,
    flow: Arc<Flow>,
    /// This reseal's own pace.
    pace: Pace,
    staged: Arc<dyn Staged>,
    /// Set when nobody waits for the reseal any more: another attempt may have adopted what is staged.
    given_up: AtomicBool,
}

/// Tells the segments that are on that the reseal is over. One that computes just then is not stopped by being aborted,
/// and must write nothing more.
struct GivenUp(Arc<Work>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Release);
    }
}

impl Work {
    /// Reseals a segment when it has a turn; returns its new header.
    async fn segment(self: Arc<Self>, index: u32) -> Result<Header> {
        let source = &self.plan.source;
        // Before there is a turn: a job that is to be slow keeps no other from working meanwhile.
        self.pace.wait(source.manifest().segment_bytes(index)).await;
        let turn = self.flow.turns.take(&self.plan.project).await;
        let verified = self.may_open_source().await?;
        if let Making::Sealed { lease, .. } = &self.plan.making {
            let renewed = lease.renew().await;
            renewed.map_err(|fault| fault.into_error(KeyRole::Target))?;
        }
        let work = Arc::clone(&self);
        let resealed = self.flow.background.run(async move {
            let _turn = turn;
            work.pieces(index, verified).await
        });
        resealed.await
    }

    /// Whether the source's data key may be used now. A copy needs it for nothing but to see that what is copied is right: where
    /// the customer has closed it meanwhile, the rest is copied as it is.
    async fn may_open_source(&self) -> Result<bool> {
        let Some(opened) = self.plan.source.opened() else {
            return Ok(false);
        };
        match (opened.lease.renew().await, &self.plan.making) {
            (Ok(()), _) => Ok(true),
            (
                Err(KeyFault::Missing | KeyFault::NotEnabled | KeyFault::Forbidden),
                Making::AsItIs,
            ) => Ok(false),
            (Err(fault), _) => Err(fault.into_error(KeyRole::Source)),
        }
    }

    /// Makes a segment piece by piece, each while the next is read.
    async fn pieces(&self, index: u32, verified: bool) -> Result<Header> {
        let source = &self.plan.source;
        let segment = source
            .manifest()
            .segment(index)
            .ok_or_else(|| Error::internal("a hole is not resealed"))?;
        let mut pieces = Pieces::of(source.manifest(), segment);
        let mut crypt = Crypt::begin(&self.plan, segment, verified)
            .map_err(|error| error.of_blob(source.manifest().blob))?;
        let header = crypt.header;
        let mut writer = self.staged.segment(index)?;
        let mut counted = 0;
        let mut spare = Buffer::default();
        let mut next = self.fetch(index, pieces.next(), Buffer::default()).await?;
        while let Some(fetched) = next.take() {
            let until = fetched.piece.until;
            let process = self.process(&mut crypt, fetched, writer.as_mut());
            let fetch = self.fetch(index, pieces.next(), spare);
            // The fetch first: where it waits for a device, it is on while the piece is sealed on this thread.
            let (ahead, used) = tokio::try_join!(biased; fetch, process)?;
            (spare, next) = (used, ahead);
            self.count(until - counted).await;
            counted = until;
        }
        if let Some(rest) = crypt.outgoing.end() {
            self.append(writer.as_mut(), rest).await?;
        }
        writer.finish().await?;
        self.count(source.manifest().segment_bytes(index) - counted)
            .await;
        Ok(header)
    }

    /// Counts plaintext bytes that are done, and keeps to the node's pace.
    async fn count(&self, bytes: u64) {
        self.plan.progress.done.fetch_add(bytes, Ordering::Relaxed);
        self.flow.pace.wait(bytes).await;
    }

    async fn fetch(
        &self,
        index: u32,
        piece: Option<Piece>,
        buffer: Buffer,
    ) -> Result<Option<Fetched>> {
        let Some(piece) = piece else {
            return Ok(None);
        };
        let source = &self.plan.source;
        let (slot, length) = self.place(index, &piece)?;
        let read = source
            .stored()
            .read(slot, piece.stored.start, length, buffer);
        let stored = read
            .await
            .map_err(|error| error.of_blob(source.manifest().blob))?;
        Ok(Some(Fetched { piece, stored }))
    }

    /// A piece once more, where that may give other bytes.
    async fn fetch_again(&self, index: u32, piece: &Piece) -> Result<Option<Buffer>> {
        let source = &self.plan.source;
        let (slot, length) = self.place(index, piece)?;
        let read = source
            .stored()
            .read_again(slot, piece.stored.start, length, Buffer::default());
        read.await
            .map_err(|error| error.of_blob(source.manifest().blob))
    }

    /// The slot that a piece is in, and how many bytes are stored of it.
    fn place(&self, index: u32, piece: &Piece) -> Result<(Slot, usize)> {
        let slot = Slot {
            index,
            size: self.plan.source.manifest().size.slot(),
        };
        let length = piece.stored.end - piece.stored.start;
        Ok((slot, usize::try_from(length).map_err(Error::internal)?))
    }

    /// Opens and seals a piece and writes it. Gives back the buffer.
    async fn process(
        &self,
        crypt: &mut Crypt,
        mut fetched: Fetched,
        writer: &mut dyn SegmentWriter,
    ) -> Result<Buffer> {
        let source = &self.plan.source;
        let of_source = |error: Error| error.of_blob(source.manifest().blob);
        let mut sealed = Sealed::default();
        if let Err(error) = crypt.reseal(source, &fetched, &mut sealed) {
            // Bytes may be wrong because of the way that they came.
            let again = match error.kind() {
                ErrorKind::Damaged => self.fetch_again(crypt.index, &fetched.piece).await?,
                _ => None,
            };
            fetched.stored = again.ok_or_else(|| of_source(error))?;
            let resealed = crypt.reseal(source, &fetched, &mut sealed);
            resealed.map_err(of_source)?;
        }
        for bytes in sealed.bytes {
            self.append(writer, bytes).await?;
        }
        Ok(fetched.stored)
    }

    async fn append(&self, writer: &mut dyn SegmentWriter, bytes: Bytes) -> Result<()> {
        if self.given_up.load(Ordering::Acquire) {
            return Err(Error::internal("the reseal was given up"));
        }
        writer.append(bytes).await
    }
}

/// Consecutive stored pages of a segment.
struct Piece {
    positions: Vec<u32>,
    /// Where they are stored, from the segment's beginning.
    stored: Range<u64>,
    /// How much of the segment's plaintext is done with them.
    until: u64,
}

struct Fetched {
    piece: Piece,
    stored: Buffer,
}

/// The pieces of a segment, one after the other.
struct Pieces<'a> {
    manifest: &'a Manifest,
    segment: &'a SealedSegment,
    position: u32,
    at: u64,
}

impl<'a> Pieces<'a> {
    const fn of(manifest: &'a Manifest, segment: &'a SealedSegment) -> Self {
        Self {
            manifest,
            segment,
            position: 0,
            at: 0,
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let index = self.segment.index;
        let (bytes, pages) = (
            self.manifest.segment_bytes(index),
            self.manifest.segment_pages(index),
        );
        let positions: Vec<u32> = (self.position..pages)
            .filter(|position| self.segment.pages.has(*position))
            .take(PIECE_PAGES)
            .collect();
        self.position = positions.last()? + 1;
        let start = self.at;
        for position in &positions {
            self.at += (SEALED_PAGE - PAGE + page_bytes(bytes, *position)) as u64;
        }
        Some(Piece {
            positions,
            stored: start..self.at,
            until: bytes.min(u64::from(self.position) * PAGE as u64),
        })
    }
}

/// How far a piece is sealed.
#[derive(Default)]
struct Sealed {
    pages: usize,
    /// Where the next page is stored, from the piece's beginning.
    at: usize,
    /// What is complete of the segment's bytes.
    bytes: Vec<Bytes>,
}

/// What is done to the pages of a segment.
enum Step {
    /// They are opened and sealed again.
    Seal(SegmentOpener, Box<SegmentSealer>),
    /// They stay as they are, and are verified where they can be opened.
    Copy(Option<SegmentOpener>),
}

/// The ciphers of a segment, and their memory.
struct Crypt {
    index: u32,
    step: Step,
    /// What the segment's readers will need.
    header: Header,
    plain: Vec<u8>,
    outgoing: Outgoing,
}

impl Crypt {
    fn begin(plan: &Plan, segment: &SealedSegment, verified: bool) -> Result<Self> {
        let (source, index) = (&plan.source, segment.index);
        let (blob, size) = (source.manifest().blob, source.manifest().size);
        let opened = source.opened().filter(|_| verified);
        let opener = opened
            .map(|opened| SegmentOpener::begin(&opened.keys, blob, size, index, &segment.header))
            .transpose()?;
        let (header, step) = match (&plan.making, opener) {
            (Making::Sealed { keys, .. }, Some(opener)) => {
                let sealer = SegmentSealer::begin(keys, plan.target, size, index)?;
                (*sealer.header(), Step::Seal(opener, Box::new(sealer)))
            }
            (Making::Sealed { .. }, None) => {
                return Err(Error::internal("what is not open can't be sealed again"));
            }
            (Making::AsItIs, opener) => (segment.header, Step::Copy(opener)),
        };
        Ok(Self {
            index,
            step,
            header,
            plain: vec![0; PAGE],
            outgoing: Outgoing::new(2),
        })
    }

    /// Opens the pages of a piece that are not done yet, and seals them or leaves them as they are. What failed at a page can be
    /// gone on with, from the bytes as they should be.
    fn reseal(&mut self, source: &Source, fetched: &Fetched, sealed: &mut Sealed) -> Result<()> {
        let manifest = source.manifest();
        let bytes = manifest.segment_bytes(self.index);
        let last = manifest.segment_pages(self.index).saturating_sub(1);
        let stored = fetched.stored.bytes();
        for position in &fetched.piece.positions[sealed.pages..] {
            let at = sealed.at;
            let length = page_bytes(bytes, *position);
            let end = at + length + SEALED_PAGE - PAGE;
            let page = stored.get(at..end).zip(self.plain.get_mut(..length));
            let Some((stored, plain)) = page else {
                return Err(Error::internal("a page lies outside its piece"));
            };
            let ends = *position == last;
            // Whoever waits for this processor has it after a page, and not when the scheduler's slice is over.
            std::thread::yield_now();
            if let Step::Seal(opener, _) | Step::Copy(Some(opener)) = &mut self.step {
                opener
                    .open(*position, ends, stored, plain)
                    .map_err(|error| read::locate(error, self.index, *position))?;
            }
            let room = self.outgoing.page();
            let length = match &mut self.step {
                Step::Seal(_, sealer) => sealer.seal(*position, ends, plain, room)?,
                Step::Copy(_) => {
                    let same = room.get_mut(..stored.len());
                    same.ok_or_else(|| Error::internal("a page is too long"))?
                        .copy_from_slice(stored);
                    stored.len()
                }
            };
            sealed.bytes.extend(self.outgoing.add(length));
            (sealed.pages, sealed.at) = (sealed.pages + 1, end);
        }
        Ok(())
    }
}

impl Drop for Crypt {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.plain);
    }
}
