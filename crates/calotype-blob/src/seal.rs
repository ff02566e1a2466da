//! Sealing: how plaintext pages become stored bytes and back.
//!
//! A segment is one message of FLOE (C2SP FLOE, ePrint 2025/2275; AES-256-GCM, HKDF-SHA-384) whose FLOE
//! segments are our pages: 65,568 stored bytes for 65,536 of plaintext. The message's key is derived from
//! the blob's data key, and so is the manifest's, so that neither can be used for the other.
//!
//! # Guarantees
//! A page opens only in the blob, the segment and the place where it was sealed, whole and unchanged, and
//! only as the last page of its segment if it was sealed as that. Every segment that is begun has a fresh
//! random IV, and every page a fresh random nonce: sealing something again never reuses either.
//!
//! # What it does not guarantee
//! Which pages exist and how long the plaintext is. A segment's length is not known when its first page
//! is sealed, because images are streamed; so the associated data holds the *size of a segment* in this
//! blob, and the true lengths and the pages that are left out stand in the manifest, under its MAC.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use calotype_core::id::BlobId;
use calotype_core::ports::DataKey;
use calotype_core::vault::{KeyBits, on_erased_stack};
use calotype_core::{Error, Result};
use fast_floe::low_level::{
    DecryptionState, EncryptionState, SegmentLayout, start_decryption, start_encryption,
};
use fast_floe::{Header, Key, Parameters};

/// Bytes of plaintext in a page.
pub const PAGE: usize = 65_536;
/// Bytes that a full page takes in the store: length (4), nonce (12), ciphertext, tag (16).
pub const SEALED_PAGE: usize = PAGE + PAGE_OVERHEAD;
/// What sealing adds to a page.
pub const PAGE_OVERHEAD: usize = 32;
/// Bytes of a segment's header that are kept: the FLOE IV and the header tag. The ten bytes of parameters
/// before them are the same for every blob of this format.
pub const HEADER: usize = 64;

const FLOE_PARAMETERS: usize = Header::LEN - HEADER;

/// The plaintext size of a blob's segments: a whole number of pages, from one to 16,384 (1 GiB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize {
    pages: u32,
}

impl SegmentSize {
    /// 64 MiB: the size in use. Other sizes are for tests.
    pub const DEFAULT: Self = Self { pages: 1024 };

    /// A size of so many pages; nothing where it is out of bounds.
    pub const fn from_pages(pages: u32) -> Option<Self> {
        if pages == 0 || pages > 16_384 {
            return None;
        }
        Some(Self { pages })
    }

    /// Pages in a full segment.
    pub const fn pages(self) -> u32 {
        self.pages
    }

    /// Bytes of plaintext in a full segment.
    pub const fn bytes(self) -> u64 {
        self.pages as u64 * PAGE as u64
    }

    /// Bytes that a full segment takes in the store: the size of its slot.
    pub const fn slot(self) -> u64 {
        self.pages as u64 * SEALED_PAGE as u64
    }

    /// Segments that so many bytes of plaintext have.
    pub const fn segments(self, plaintext: u64) -> u64 {
        plaintext.div_ceil(self.bytes())
    }

    /// Bytes of plaintext in segment `index` of a blob of so many bytes.
    pub const fn segment_bytes(self, plaintext: u64, index: u32) -> u64 {
        let rest = plaintext.saturating_sub(index as u64 * self.bytes());
        if rest < self.bytes() {
            rest
        } else {
            self.bytes()
        }
    }
}

/// Bytes of plaintext in the page at `position` of a segment of so many bytes.
pub(crate) fn page_bytes(segment_bytes: u64, position: u32) -> usize {
    let rest = segment_bytes.saturating_sub(u64::from(position) * PAGE as u64);
    usize::try_from(rest).unwrap_or(PAGE).min(PAGE)
}

/// A blob's keys, derived from its data key. Erased when dropped, and in one place until then: what moves is a pointer.
pub struct BlobKeys {
    pages: Box<Key>,
    manifest: hmac::Key,
}

impl BlobKeys {
    /// The keys under a data key.
    ///
    /// # Errors
    /// Internal where the key derivation fails, which it does not.
    pub fn derive(key: &DataKey) -> Result<Self> {
        let prk = Salt::new(HKDF_SHA256, b"calotype blob 1").extract(key.expose());
        let expand = |purpose: &[u8]| {
            let mut filled = Ok(());
            let bits = KeyBits::written(|bits| {
                filled = prk
                    .expand(&[purpose], HKDF_SHA256)
                    .and_then(|okm| okm.fill(bits));
            });
            filled.map_err(|_| Error::internal("deriving a blob's keys failed"))?;
            Ok::<_, Error>(bits)
        };
        let (pages, manifest) = (expand(b"pages")?, expand(b"manifest")?);
        Ok(Self {
            pages: on_erased_stack(|| Box::new(Key::from_bytes(*pages))),
            manifest: hmac::Key::new(hmac::HMAC_SHA256, manifest.as_slice()),
        })
    }

    /// The key of the manifest's MAC.
    pub(crate) const fn manifest(&self) -> &hmac::Key {
        &self.manifest
    }
}

impl fmt::Debug for BlobKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKeys(..)")
    }
}

fn parameters() -> Result<Parameters> {
    let length = u32::try_from(SEALED_PAGE).map_err(Error::internal)?;
    Parameters::with_segment_length(length).map_err(Error::internal)
}

fn associated(blob: BlobId, size: SegmentSize, index: u32) -> Vec<u8> {
    let mut associated = b"calotype segment 1\0".to_vec();
    associated.extend_from_slice(blob.as_uuid().as_bytes());
    associated.extend_from_slice(&index.to_be_bytes());
    associated.extend_from_slice(&size.bytes().to_be_bytes());
    associated
}

/// The place of a page: its position, and whether it is its segment's last.
fn place(parameters: Parameters, position: u32, bytes: usize, last: bool) -> Result<SegmentLayout> {
    // A layout that ends with this page makes it final; one that goes on by a byte does not.
    let end = u64::from(position) * PAGE as u64 + bytes as u64 + u64::from(!last);
    parameters
        .plaintext_layout(end)
        .map_err(Error::internal)?
        .segment_for_position(u64::from(position))
        .ok_or_else(|| Error::internal("a page lies outside its segment"))
}

/// A segment that is being sealed: a fresh message, with a fresh IV.
pub struct SegmentSealer {
    state: EncryptionState,
    parameters: Parameters,
    header: [u8; HEADER],
}

impl SegmentSealer {
    /// Begins segment `index` of `blob`.
    ///
    /// # Errors
    /// Internal where the cipher or its random generator fails.
    pub fn begin(keys: &BlobKeys, blob: BlobId, size: SegmentSize, index: u32) -> Result<Self> {
        let parameters = parameters()?;
        let (state, whole) =
            start_encryption(&keys.pages, &associated(blob, size, index), parameters)
                .map_err(Error::internal)?;
        let mut header = [0; HEADER];
        header.copy_from_slice(&whole.as_bytes()[FLOE_PARAMETERS..]);
        Ok(Self {
            state,
            parameters,
            header,
        })
    }

    /// What a reader needs to open the segment.
    pub const fn header(&self) -> &[u8; HEADER] {
        &self.header
    }

    /// Seals a page into the beginning of `out` and gives the number of bytes it takes there. Each
    /// position is sealed at most once; a page that is not its segment's last is a full one.
    ///
    /// # Errors
    /// Internal where the page or `out` has a wrong length, or the cipher fails.
    pub fn seal(
        &mut self,
        position: u32,
        last: bool,
        page: &[u8],
        out: &mut [u8],
    ) -> Result<usize> {
        let place = place(self.parameters, position, page.len(), last)?;
        self.state
            .encrypt_segment_into(page, place, out)
            .map_err(Error::internal)
    }
}

/// A segment that is being read, its header verified.
pub struct SegmentOpener {
    state: DecryptionState,
    parameters: Parameters,
}

impl SegmentOpener {
    /// Opens segment `index` of `blob`.
    ///
    /// # Errors
    /// Damaged where the header does not authenticate.
    pub fn begin(
        keys: &BlobKeys,
        blob: BlobId,
        size: SegmentSize,
        index: u32,
        header: &[u8; HEADER],
    ) -> Result<Self> {
        let parameters = parameters()?;
        // The parameters are ours to say, not the store's: a header for any others is refused by its tag.
        let mut whole = [0; Header::LEN];
        whole[2..6].copy_from_slice(
            &u32::try_from(SEALED_PAGE)
                .map_err(Error::internal)?
                .to_be_bytes(),
        );
        whole[6..FLOE_PARAMETERS].copy_from_slice(&32_u32.to_be_bytes());
        whole[FLOE_PARAMETERS..].copy_from_slice(header);
        let state = start_decryption(
            &keys.pages,
            &associated(blob, size, index),
            parameters,
            &Header::from(whole),
        )
        .map_err(Error::damaged)?;
        Ok(Self { state, parameters })
    }

    /// Verifies a stored page and writes its plaintext to `out`, which has the page's length.
    ///
    /// # Errors
    /// Damaged where it does not authenticate. What `out` holds then is to be thrown away.
    pub fn open(&mut self, position: u32, last: bool, stored: &[u8], out: &mut [u8]) -> Result<()> {
        let place = place(self.parameters, position, out.len(), last)?;
        self.state
            .decrypt_segment_into(stored, place, out)
            .map_err(Error::damaged)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
