//! The manifest: a blob's table of contents, and the commit record of its bytes.
//!
//! # Format (version 1; integers big-endian)
//! ```text
//! front    "CALOBLOB" | version u16 | blob id [16] | master key: length u8, text | its version u32
//!          | wrapped data key: length u16, bytes
//! body     segment size in pages u32 | plaintext bytes u64
//!          | digests present u8 (1 md5, 2 sha256, 4 sha512) | those digests
//!          | number of sealed segments u32 | sealed segments, by rising index
//! segment  index u32 | form u8 (1 every page is stored, 2 a bitmap follows) | FLOE IV [32] | header tag [32]
//!          | bitmap, one bit for each page, lowest first
//! mac      HMAC-SHA-256 [32] over all of the above, under a key derived from the data key
//! ```
//! A segment that is not listed has no stored page: it reads as zeros and costs nothing. A full 16 TiB
//! blob has a manifest of 18 MB; its bitmaps add at most 34 MB.
//!
//! # Guarantees
//! Nothing past the front is looked at before the MAC has been verified, and the front only to learn which
//! key that takes; but for a copy of bytes whose key is not to be had, which needs to know how many there are. There is one
//! encoding of each manifest: anything else is refused, as is anything that is longer than [`LIMIT`]. Every length that follows from another is computed, not stored.

use aws_lc_rs::hmac;
use calotype_core::id::BlobId;
use calotype_core::image::Digests;
use calotype_core::ports::{BlobFacts, WrappedKey};
use calotype_core::size::ByteSize;
use uuid::Uuid;

use crate::seal::{BlobKeys, HEADER, PAGE, PAGE_OVERHEAD, SegmentSize, page_bytes};

/// The most bytes a manifest may have.
pub const LIMIT: usize = 64 << 20;
/// The most segments a blob may have: 16 TiB of plaintext at 64 MiB each.
pub const MAX_SEGMENTS: u64 = 1 << 18;

const MAGIC: &[u8; 8] = b"CALOBLOB";
const VERSION: u16 = 1;
const MAC: usize = 32;
const ALL: u8 = 1;
const SOME: u8 = 2;

/// Why a manifest is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It ends early, has bytes left over, or holds a value that no writer of ours writes.
    #[error("the manifest is malformed")]
    Malformed,
    /// It is of a format that this release does not know.
    #[error("the manifest is of an unknown version")]
    Version,
    /// It belongs to another blob.
    #[error("the manifest is another blob's")]
    OtherBlob,
    /// Its MAC is wrong.
    #[error("the manifest does not authenticate")]
    Forged,
}

/// Which pages of a segment are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pages {
    /// Every one.
    All,
    /// Those whose bit is set, lowest bit first; at least one.
    Some(Box<[u8]>),
}

impl Pages {
    /// Whether the page at `position` is stored.
    pub fn has(&self, position: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => bits
                .get(position as usize / 8)
                .is_some_and(|byte| byte >> (position % 8) & 1 == 1),
        }
    }

    /// How many pages before `position` are stored.
    pub fn before(&self, position: u32) -> u32 {
        match self {
            Self::All => position,
            Self::Some(bits) => {
                let whole = (position as usize / 8).min(bits.len());
                let count: u32 = bits[..whole].iter().map(|byte| byte.count_ones()).sum();
                let rest = bits
                    .get(whole)
                    .map_or(0, |byte| byte & ((1 << (position % 8)) - 1));
                count + rest.count_ones()
            }
        }
    }
}

/// A segment with at least one stored page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its place in the blob.
    pub index: u32,
    /// Its FLOE IV and header tag.
    pub header: [u8; HEADER],
    /// Its stored pages.
    pub pages: Pages,
}

/// What can be known of a manifest before its key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// The wrapped data key.
    pub wrapped: WrappedKey,
    body: usize,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The blob it describes.
    pub blob: BlobId,
    /// The blob's wrapped data key.
    pub wrapped: WrappedKey,
    /// The size of its segments.
    pub size: SegmentSize,
    /// Bytes of plaintext.
    pub plaintext: u64,
    /// Digests of the plaintext.
    pub digests: Digests,
    /// The segments that have stored pages, by rising index.
    pub segments: Vec<SealedSegment>,
}

impl Manifest {
    /// The sealed segment `index`; nothing where it is a hole.
    pub fn segment(&self, index: u32) -> Option<&SealedSegment> {
        let at = self
            .segments
            .binary_search_by_key(&index, |segment| segment.index)
            .ok()?;
        self.segments.get(at)
    }

    /// Bytes of plaintext in a segment.
    pub const fn segment_bytes(&self, index: u32) -> u64 {
        self.size.segment_bytes(self.plaintext, index)
    }

    /// Pages, stored or not, in a segment.
    pub const fn segment_pages(&self, index: u32) -> u32 {
        // At most 16,384 pages: see `SegmentSize`.
        self.segment_bytes(index).div_ceil(PAGE as u64) as u32
    }

    /// Bytes that the sealed pages take in the store.
    pub fn stored_pages(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| self.stored_before(segment, self.segment_pages(segment.index)))
            .sum()
    }

    /// Bytes that the stored pages of `segment` before `position` take: where `position` is stored, if
    /// it is.
    pub fn stored_before(&self, segment: &SealedSegment, position: u32) -> u64 {
        let bytes = self.segment_bytes(segment.index);
        let full = PAGE as u64 + PAGE_OVERHEAD as u64;
        let whole = u64::from(segment.pages.before(position)) * full;
        let last = self.segment_pages(segment.index).saturating_sub(1);
        if position > last && segment.pages.has(last) {
            return whole - (PAGE - page_bytes(bytes, last)) as u64;
        }
        whole
    }

    /// What the domain knows of the blob, whose manifest has `length` bytes.
    pub fn facts(&self, length: usize) -> BlobFacts {
        BlobFacts {
            size: ByteSize::new(self.plaintext),
            stored: ByteSize::new(self.stored_pages() + length as u64),
            digests: self.digests.clone(),
        }
    }

    /// The manifest's bytes, under its MAC.
    ///
    /// # Errors
    /// Malformed where something is too large for the format.
    pub fn encode(&self, keys: &BlobKeys) -> Result<Vec<u8>, ManifestError> {
        let malformed = |_| ManifestError::Malformed;
        let mut out = Vec::with_capacity(512 + self.segments.len() * (HEADER + 5));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(self.blob.as_uuid().as_bytes());
        let name = self.wrapped.master_key.as_bytes();
        out.push(u8::try_from(name.len()).map_err(malformed)?);
        out.extend_from_slice(name);
        out.extend_from_slice(&self.wrapped.version.to_be_bytes());
        let sealed = &self.wrapped.sealed;
        out.extend_from_slice(
            &u16::try_from(sealed.len())
                .map_err(malformed)?
                .to_be_bytes(),
        );
        out.extend_from_slice(sealed);

        out.extend_from_slice(&self.size.pages().to_be_bytes());
        out.extend_from_slice(&self.plaintext.to_be_bytes());
        write_digests(&mut out, &self.digests)?;
        let count = u32::try_from(self.segments.len()).map_err(malformed)?;
        out.extend_from_slice(&count.to_be_bytes());
        for segment in &self.segments {
            out.extend_from_slice(&segment.index.to_be_bytes());
            out.push(match segment.pages {
                Pages::All => ALL,
                Pages::Some(_) => SOME,
            });
            out.extend_from_slice(&segment.header);
            if let Pages::Some(bits) = &segment.pages {
                out.extend_from_slice(bits);
            }
        }
        let mac = hmac::sign(keys.manifest(), &out);
        out.extend_from_slice(mac.as_ref());
        if out.len() > LIMIT {
            return Err(ManifestError::Malformed);
        }
        Ok(out)
    }

    /// Reads the part of `bytes` that says which key the rest takes.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn front(bytes: &[u8], blob: BlobId) -> Result<Front, ManifestError> {
        if bytes.len() > LIMIT {
            return Err(ManifestError::Malformed);
        }
        let mut input = Input(bytes);
        if input.take(MAGIC.len())? != MAGIC {
            return Err(ManifestError::Malformed);
        }
        if u16::from_be_bytes(input.array()?) != VERSION {
            return Err(ManifestError::Version);
        }
        if BlobId::from(Uuid::from_bytes(input.array()?)) != blob {
            return Err(ManifestError::OtherBlob);
        }
        let [length] = input.array()?;
        let name = std::str::from_utf8(input.take(usize::from(length))?)
            .map_err(|_| ManifestError::Malformed)?;
        let version = u32::from_be_bytes(input.array()?);
        let length = u16::from_be_bytes(input.array()?);
        let sealed = input.take(usize::from(length))?;
        Ok(Front {
            wrapped: WrappedKey {
                master_key: name.to_owned(),
                version,
                sealed: sealed.to_vec(),
            },
            body: bytes.len() - input.0.len(),
        })
    }

    /// Verifies and reads a manifest whose front was read before.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn open(
        bytes: &[u8],
        blob: BlobId,
        front: Front,
        keys: &BlobKeys,
    ) -> Result<Self, ManifestError> {
        let split = bytes
            .len()
            .checked_sub(MAC)
            .ok_or(ManifestError::Malformed)?;
        let (content, mac) = bytes.split_at(split);
        hmac::verify(keys.manifest(), content, mac).map_err(|_| ManifestError::Forged)?;

        Self::decode(content, blob, front)
    }

    /// Reads a manifest whose key is not to be had: nobody knows whether it is authentic, so nothing may be concluded from it but
    /// which of the bytes beside it belong to it.
    ///
    /// # Errors
    /// Malformed.
    pub(crate) fn unverified(
        bytes: &[u8],
        blob: BlobId,
        front: Front,
    ) -> Result<Self, ManifestError> {
        let split = bytes.len().checked_sub(MAC);
        let content = split.and_then(|split| bytes.get(..split));
        Self::decode(content.ok_or(ManifestError::Malformed)?, blob, front)
    }

    fn decode(content: &[u8], blob: BlobId, front: Front) -> Result<Self, ManifestError> {
        let mut input = Input(content.get(front.body..).ok_or(ManifestError::Malformed)?);
        let size = SegmentSize::from_pages(u32::from_be_bytes(input.array()?))
            .ok_or(ManifestError::Malformed)?;
        let plaintext = u64::from_be_bytes(input.array()?);
        if size.segments(plaintext) > MAX_SEGMENTS {
            return Err(ManifestError::Malformed);
        }
        let digests = read_digests(&mut input)?;
        let count = u32::from_be_bytes(input.array()?);
        let mut manifest = Self {
            blob,
            wrapped: front.wrapped,
            size,
            plaintext,
            digests,
            segments: Vec::new(),
        };
        for _ in 0..count {
            let segment = read_segment(&mut input, &manifest)?;
            manifest.segments.push(segment);
        }
        if !input.0.is_empty() {
            return Err(ManifestError::Malformed);
        }
        Ok(manifest)
    }
}

fn read_segment(
    input: &mut Input<'_>,
    manifest: &Manifest,
) -> Result<SealedSegment, ManifestError> {
    let index = u32::from_be_bytes(input.array()?);
    let rises = manifest
        .segments
        .last()
        .is_none_or(|before| before.index < index);
    let count = manifest.segment_pages(index);
    if !rises || count == 0 {
        return Err(ManifestError::Malformed);
    }
    let [form] = input.array()?;
    let header = input.array()?;
    let pages = match form {
        ALL => Pages::All,
        SOME => {
            let bits = input.take(count.div_ceil(8) as usize)?;
            let pages = Pages::Some(bits.into());
            let stored = pages.before(count);
            let beyond = pages.before(count.next_multiple_of(8)) - stored;
            // Every page, none, or one that the segment has not: no writer writes that.
            if stored == 0 || stored == count || beyond != 0 {
                return Err(ManifestError::Malformed);
            }
            pages
        }
        _ => return Err(ManifestError::Malformed),
    };
    Ok(SealedSegment {
        index,
        header,
        pages,
    })
}

fn digest_fields(digests: &Digests) -> [(u8, usize, &Option<String>); 3] {
    [
        (1, 16, &digests.md5),
        (2, 32, &digests.sha256),
        (4, 64, &digests.sha512),
    ]
}

fn write_digests(out: &mut Vec<u8>, digests: &Digests) -> Result<(), ManifestError> {
    let fields = digest_fields(digests);
    out.push(
        fields
            .iter()
            .filter(|(_, _, digest)| digest.is_some())
            .map(|(flag, _, _)| flag)
            .sum(),
    );
    for (_, length, digest) in fields {
        if let Some(text) = digest {
            let bytes = hex::decode(text).map_err(|_| ManifestError::Malformed)?;
            if bytes.len() != length {
                return Err(ManifestError::Malformed);
            }
            out.extend_from_slice(&bytes);
        }
    }
    Ok(())
}

fn read_digests(input: &mut Input<'_>) -> Result<Digests, ManifestError> {
    let [present] = input.array()?;
    if present > 7 {
        return Err(ManifestError::Malformed);
    }
    let mut digest = |flag: u8, length: usize| {
        if present & flag == 0 {
            return Ok(None);
        }
        input.take(length).map(|bytes| Some(hex::encode(bytes)))
    };
    Ok(Digests {
        md5: digest(1, 16)?,
        sha256: digest(2, 32)?,
        sha512: digest(4, 64)?,
    })
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ManifestError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ManifestError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        self.take(N)?
            .try_into()
            .map_err(|_| ManifestError::Malformed)
    }
}

#[cfg(test)]
mod tests;
