//! Reading a blob: any range of its plaintext, verified page by page.
//!
//! # Guarantees
//! No byte leaves before the page that it is in has been verified; pages outside the range are not read.
//! A page that does not authenticate ends the stream with a Damaged error; a master key that was disabled meanwhile ends
//! it when the lease on the data key is over.
//!
//! # Cancellation
//! The reading runs ahead of the consumer by a few pieces, in a task that ends at its next piece when the
//! stream is dropped.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::ports::{BlobFacts, BlobReader, ByteStream, Depth, Extent};
use calotype_core::{Error, ErrorKind, Result};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::data_keys::Lease;
use crate::manifest::{Manifest, SealedSegment};
use crate::seal::{BlobKeys, PAGE, SegmentOpener, page_bytes};
use crate::share::Pace;
use crate::store::{Buffer, Slot, Stored};
use crate::write::PIECE;

/// Pieces that are ready before the consumer asks for them.
const AHEAD: usize = 2;

static ZEROS: [u8; PIECE] = [0; PIECE];

/// A blob whose manifest is verified.
pub(crate) struct OpenBlob {
    pub(crate) manifest: Manifest,
    pub(crate) keys: BlobKeys,
    /// The right to use the data key.
    pub(crate) lease: Lease,
    pub(crate) stored: Arc<dyn Stored>,
    pub(crate) facts: BlobFacts,
}

/// A reader over an open blob.
pub(crate) struct Reader(pub(crate) Arc<OpenBlob>);

impl BlobReader for Reader {
    fn facts(&self) -> &BlobFacts {
        &self.0.facts
    }

    fn read(&self, range: Range<u64>) -> ByteStream {
        if range.start > range.end || range.end > self.0.manifest.plaintext {
            let error = Error::new(
                ErrorKind::RangeNotSatisfiable,
                "The range lies outside the image.",
            );
            return stream::once(async { Err(error) }).boxed();
        }
        if range.is_empty() {
            return stream::empty().boxed();
        }
        let blob = Arc::clone(&self.0);
        // Not before the first poll: a stream that nobody reads costs nothing.
        stream::once(async move {
            let (sender, receiver) = mpsc::channel(AHEAD);
            tokio::spawn(pump(blob, range, None, sender));
            stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|piece| (piece, receiver))
            })
        })
        .flatten()
        .boxed()
    }

    fn extent(&self, at: u64) -> Extent {
        let manifest = &self.0.manifest;
        let (size, page) = (manifest.size.bytes(), PAGE as u64);
        let (segment, within) = (at / size, at % size);
        let start = segment * size;
        let end = (start + size).min(manifest.plaintext);
        let index = u32::try_from(segment).ok();
        let Some(sealed) = index.and_then(|index| manifest.segment(index)) else {
            return Extent { end, zeros: true };
        };
        let is_stored = |position: u64| {
            let position = u32::try_from(position);
            position.is_ok_and(|position| sealed.pages.has(position))
        };
        let first = within / page;
        let stored = is_stored(first);
        let pages = (end - start).div_ceil(page);
        let other = (first..pages).find(|position| is_stored(*position) != stored);
        Extent {
            end: other.map_or(end, |position| start + position * page),
            zeros: !stored,
        }
    }
}

/// Some consecutive pages of one segment, and the part of them that is wanted.
#[derive(Debug, Clone)]
struct Span {
    index: u32,
    pages: Range<u32>,
    wanted: Range<usize>,
}

/// The spans of a range, one after the other.
struct Spans<'a> {
    manifest: &'a Manifest,
    rest: Range<u64>,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        if self.rest.is_empty() {
            return None;
        }
        let (size, page) = (self.manifest.size.bytes(), PAGE as u64);
        let segment = self.rest.start / size;
        let within = self.rest.start % size;
        let index = u32::try_from(segment).ok()?;
        // Cut at multiples of a piece, so that reads of neighbours do not overlap.
        let first = within / page;
        let boundary = (within / PIECE as u64 + 1) * PIECE as u64;
        let wanted_end = (self.rest.end - segment * size).min(size);
        let end = boundary.min(wanted_end);
        let last = end.div_ceil(page);
        let from = within - first * page;
        self.rest.start = segment * size + end;
        Some(Span {
            index,
            pages: u32::try_from(first).ok()?..u32::try_from(last).ok()?,
            wanted: usize::try_from(from).ok()?..usize::try_from(from + end - within).ok()?,
        })
    }
}

/// Reads a range piece by piece. With a pace only what is stored is read, and sent: zeros are left out.
async fn pump(
    blob: Arc<OpenBlob>,
    range: Range<u64>,
    pace: Option<Pace>,
    sender: mpsc::Sender<Result<Bytes>>,
) {
    let spans = Spans {
        manifest: &blob.manifest,
        rest: range,
    };
    let mut fetched = None;
    let mut opening = Opening::default();
    // One step more than there are spans: while one is opened, the next is read.
    for span in spans.map(Some).chain([None]) {
        if let (Some(pace), Some(span)) = (&pace, &span) {
            let (_, place) = place_of(&blob, span);
            if place.is_empty() {
                continue;
            }
            pace.wait(place.end - place.start).await;
        }
        let fetch = fetch(&blob, span, opening.spare.pop());
        let (opened, next) = match fetched.take() {
            None => (None, fetch.await),
            Some(stored) => {
                let open = open_on_a_thread(&blob, opening, stored);
                let (opened, next) = tokio::join!(open, fetch);
                match opened {
                    Ok((back, piece)) => {
                        opening = back;
                        (Some(piece), next)
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                }
            }
        };
        if let Some(piece) = opened
            && sender.send(Ok(piece)).await.is_err()
        {
            return;
        }
        match next {
            Ok(next) => fetched = next,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    }
}

/// A span with its stored bytes.
struct Fetched {
    span: Span,
    /// Holds nothing where none of the span's pages is stored.
    stored: Buffer,
    empty: bool,
}

async fn fetch(
    blob: &OpenBlob,
    span: Option<Span>,
    spare: Option<Buffer>,
) -> Result<Option<Fetched>> {
    let Some(span) = span else {
        return Ok(None);
    };
    let mut stored = spare.unwrap_or_default();
    let (slot, place) = place_of(blob, &span);
    blob.lease.renew().await?;
    if !place.is_empty() {
        let length = usize::try_from(place.end - place.start).map_err(Error::internal)?;
        let read = blob.stored.read(slot, place.start, length, stored).await;
        stored = read.map_err(|error| error.of_blob(blob.manifest.blob))?;
    }
    Ok(Some(Fetched {
        span,
        stored,
        empty: place.is_empty(),
    }))
}

/// A span once more, where that may give other bytes.
async fn fetch_again(blob: &OpenBlob, span: Span) -> Result<Option<Fetched>> {
    let (slot, place) = place_of(blob, &span);
    let length = usize::try_from(place.end - place.start).map_err(Error::internal)?;
    let read = blob
        .stored
        .read_again(slot, place.start, length, Buffer::default());
    let stored = read
        .await
        .map_err(|error| error.of_blob(blob.manifest.blob))?;
    Ok(stored.map(|stored| Fetched {
        span,
        stored,
        empty: false,
    }))
}

/// Where the stored bytes of a span are.
fn place_of(blob: &OpenBlob, span: &Span) -> (Slot, Range<u64>) {
    let place = blob.manifest.segment(span.index).map(|segment| {
        let start = blob.manifest.stored_before(segment, span.pages.start);
        let end = blob.manifest.stored_before(segment, span.pages.end);
        start..end
    });
    let slot = Slot {
        index: span.index,
        size: blob.manifest.size.slot(),
    };
    (slot, place.unwrap_or_default())
}

/// What goes from one opening to the next: the current segment's state, and buffers to use again.
#[derive(Default)]
struct Opening {
    segment: Option<(u32, SegmentOpener)>,
    spare: Vec<Buffer>,
}

/// Opens what was read. What does not authenticate is read again from where it is kept for good, if it may have come from
/// elsewhere.
async fn open_on_a_thread(
    blob: &Arc<OpenBlob>,
    opening: Opening,
    fetched: Fetched,
) -> Result<(Opening, Bytes)> {
    let span = fetched.span.clone();
    match open_once(blob, opening, fetched).await {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            let Some(again) = fetch_again(blob, span).await? else {
                return Err(error);
            };
            let opened = open_once(blob, Opening::default(), again).await?;
            tracing::warn!(blob.id = %blob.manifest.blob, error.chain = %error.chain(), "wrong bytes were read again, and are right");
            Ok(opened)
        }
        other => other,
    }
}

async fn open_once(
    blob: &Arc<OpenBlob>,
    mut opening: Opening,
    fetched: Fetched,
) -> Result<(Opening, Bytes)> {
    if fetched.empty {
        opening.spare.push(fetched.stored);
        return Ok((opening, Bytes::from_static(&ZEROS[fetched.span.wanted])));
    }
    let blob = Arc::clone(blob);
    spawn_blocking(move || {
        let piece = open_pages(&blob, &mut opening, &fetched)
            .map_err(|error| error.of_blob(blob.manifest.blob))?;
        opening.spare.push(fetched.stored);
        Ok((opening, piece))
    })
    .await
    .map_err(Error::internal)?
}

fn open_pages(blob: &OpenBlob, opening: &mut Opening, fetched: &Fetched) -> Result<Bytes> {
    let Fetched { span, stored, .. } = fetched;
    let manifest = &blob.manifest;
    let segment = manifest
        .segment(span.index)
        .ok_or_else(|| Error::internal("a hole has no stored bytes"))?;
    let opener = opener(blob, &mut opening.segment, segment)?;
    let bytes = manifest.segment_bytes(span.index);
    let last_page = manifest.segment_pages(span.index).saturating_sub(1);
    let base = manifest.stored_before(segment, span.pages.start);

    let length = span
        .pages
        .clone()
        .map(|position| page_bytes(bytes, position))
        .sum();
    let mut plain = vec![0; length];
    let mut rest = plain.as_mut_slice();
    for position in span.pages.clone() {
        let (page, after) = rest.split_at_mut(page_bytes(bytes, position).min(rest.len()));
        rest = after;
        if segment.pages.has(position) {
            let start = manifest.stored_before(segment, position) - base;
            let end = manifest.stored_before(segment, position + 1) - base;
            let sealed = usize::try_from(start)
                .ok()
                .zip(usize::try_from(end).ok())
                .and_then(|(start, end)| stored.bytes().get(start..end))
                .ok_or_else(|| Error::internal("a page lies outside what was read"))?;
            opener
                .open(position, position == last_page, sealed, page)
                .map_err(|error| locate(error, span.index, position))?;
        }
    }
    Ok(Bytes::from(plain).slice(span.wanted.clone()))
}

fn opener<'a>(
    blob: &OpenBlob,
    current: &'a mut Option<(u32, SegmentOpener)>,
    segment: &SealedSegment,
) -> Result<&'a mut SegmentOpener> {
    let known = current.take().filter(|(index, _)| *index == segment.index);
    let opener = match known {
        Some((_, opener)) => opener,
        None => SegmentOpener::begin(
            &blob.keys,
            blob.manifest.blob,
            blob.manifest.size,
            segment.index,
            &segment.header,
        )?,
    };
    Ok(&mut current.insert((segment.index, opener)).1)
}

/// Where the damage is, for the log.
#[derive(Debug, thiserror::Error)]
#[error("segment {index}, page {position} does not authenticate")]
struct BadPage {
    index: u32,
    position: u32,
    source: Error,
}

pub(crate) fn locate(error: Error, index: u32, position: u32) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    Error::damaged(BadPage {
        index,
        position,
        source: error,
    })
}

/// Opens the pages of a blob, all of them or the last stored one of each segment, and throws them away.
pub(crate) async fn verify(blob: &Arc<OpenBlob>, depth: Depth) -> Result<()> {
    let rate = match depth {
        Depth::Ends => return verify_ends(blob).await,
        Depth::Pages => None,
        Depth::PagesAt(rate) => Some(rate.bytes()),
    };
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let whole = 0..blob.manifest.plaintext;
    let pump = pump(Arc::clone(blob), whole, Some(Pace::new(rate)), sender);
    let drain = async {
        while let Some(piece) = receiver.recv().await {
            piece?;
        }
        Ok(())
    };
    tokio::join!(pump, drain).1
}

async fn verify_ends(blob: &Arc<OpenBlob>) -> Result<()> {
    let mut opening = Opening::default();
    for segment in &blob.manifest.segments {
        let pages = blob.manifest.segment_pages(segment.index);
        let last = (0..pages).rev().find(|page| segment.pages.has(*page));
        let Some(last) = last else { continue };
        let span = Span {
            index: segment.index,
            pages: last..last + 1,
            wanted: 0..0,
        };
        if let Some(fetched) = fetch(blob, Some(span), opening.spare.pop()).await? {
            (opening, _) = open_on_a_thread(blob, opening, fetched).await?;
        }
    }
    Ok(())
}

/// A manifest's blob, ready to be read.
pub(crate) fn open_blob(
    bytes: &Bytes,
    blob: BlobId,
    front: crate::manifest::Front,
    keys: BlobKeys,
    lease: Lease,
    stored: Arc<dyn Stored>,
) -> Result<Arc<OpenBlob>> {
    let manifest = Manifest::open(bytes, blob, front, &keys)
        .map_err(|error| Error::damaged(error).of_blob(blob))?;
    let facts = manifest.facts(bytes.len());
    Ok(Arc::new(OpenBlob {
        manifest,
        keys,
        lease,
        stored,
        facts,
    }))
}
