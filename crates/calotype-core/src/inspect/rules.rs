//! What a format's rules are to the stream: they are handed the beginning, and then each piece that they ask for.

use std::fmt;

use super::Result;

/// Bytes of a table that are looked at in one piece.
pub(super) const PIECE: usize = 64 * 1024;

/// The rules of one format, for one image.
pub(super) trait Rules: fmt::Debug + Send {
    /// Looks at the piece that was asked for, and says which is next. Pieces come in the order of the stream.
    fn examine(&mut self, _piece: &[u8]) -> Result<Next> {
        Ok(Next::Enough)
    }

    /// Bytes that are held from one piece to the next.
    fn held(&self) -> usize {
        0
    }

    /// Looks at the end, and says how large the described disk is.
    fn finish(&self, end: &End<'_>) -> Result<Option<u64>>;
}

/// Rules that have seen the beginning, and what they want to see next.
pub(super) type Begun = (Box<dyn Rules>, Next);

/// What rules want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// These bytes: an image that ends before them is refused.
    Piece(Piece),
    /// These bytes, unless the image ends exactly where they would begin.
    PieceOrEnd(Piece),
    /// The end.
    Enough,
}

/// A few bytes at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) length: usize,
}

/// The end of the stream.
#[derive(Debug)]
pub(super) struct End<'a> {
    /// Bytes in all.
    pub(super) length: u64,
    /// The last bytes.
    pub(super) tail: &'a [u8],
}

impl<'a> End<'a> {
    /// The last `length` bytes; none where there are fewer.
    pub(super) fn last(&self, length: usize) -> &'a [u8] {
        let from = self.tail.len().checked_sub(length);
        from.and_then(|from| self.tail.get(from..))
            .unwrap_or_default()
    }
}

/// A table that is looked at from its beginning to its end, piece by piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    at: u64,
    left: u64,
}

impl Table {
    pub(super) fn new(at: u64, length: u64) -> Self {
        Self { at, left: length }
    }

    /// The first byte behind the whole table.
    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(self.left)
    }

    /// The next piece, which is then done with; none at the table's end.
    pub(super) fn next(&mut self) -> Option<Piece> {
        let length = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let piece = Piece {
            at: self.at,
            length,
        };
        self.at = self.at.saturating_add(length as u64);
        self.left -= length as u64;
        (length > 0).then_some(piece)
    }
}

/// What tables refer to: how many places there are, and which of them is the farthest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    pub(super) count: u64,
    pub(super) farthest: u64,
}

impl Places {
    pub(super) fn add(&mut self, at: u64) {
        self.count += 1;
        self.farthest = self.farthest.max(at);
    }

    /// Whether the farthest of them is followed by `least` bytes at least.
    pub(super) fn end_before(&self, length: u64, least: u64) -> bool {
        self.count == 0 || self.farthest.saturating_add(least) <= length
    }

    /// Whether there is room for all of them, so that no two are the same: each is `unit` bytes long, of which the last one's may
    /// be cut short.
    pub(super) fn fit(&self, length: u64, unit: u64) -> bool {
        self.count.saturating_mul(unit) <= length.saturating_add(unit)
    }
}
