use calotype_core::ports::DataKey;
use proptest::prelude::*;

use super::*;

fn blob() -> BlobId {
    BlobId::from(Uuid::from_u128(7))
}

fn keys() -> BlobKeys {
    BlobKeys::derive(&DataKey::new([1; 32])).expect("derived")
}

fn manifest(pages: u32, plaintext: u64, segments: Vec<SealedSegment>) -> Manifest {
    Manifest {
        blob: blob(),
        wrapped: WrappedKey {
            master_key: "service".to_owned(),
            version: 1,
            sealed: vec![5; 61],
        },
        size: SegmentSize::from_pages(pages).expect("within bounds"),
        plaintext,
        digests: Digests {
            md5: Some("00".repeat(16)),
            sha256: None,
            sha512: Some("ff".repeat(64)),
        },
        segments,
    }
}

fn segment(index: u32, pages: Pages) -> SealedSegment {
    SealedSegment {
        index,
        header: [3; HEADER],
        pages,
    }
}

fn some(bits: &[u8]) -> Pages {
    Pages::Some(bits.into())
}

fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let front = Manifest::front(bytes, blob())?;
    Manifest::open(bytes, blob(), front, &keys())
}

/// Writes a manifest that may be one that no writer of ours writes, under a right MAC.
fn reread(manifest: &Manifest) -> Result<Manifest, ManifestError> {
    read(&manifest.encode(&keys()).expect("encoded"))
}

const PAGE64: u64 = PAGE as u64;

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let whole = manifest(
        10,
        35 * PAGE64 + 1,
        vec![
            segment(0, Pages::All),
            segment(2, some(&[0b1000_0001, 0b10])),
            segment(3, some(&[0b10_0000])),
        ],
    );
    assert_eq!(reread(&whole), Ok(whole.clone()));
    // Ten pages, three pages, and one byte.
    assert_eq!(whole.stored_pages(), 13 * 65_568 + 33);
    assert!(whole.segment(1).is_none());
    let empty = manifest(10, 0, Vec::new());
    assert_eq!(reread(&empty), Ok(empty.clone()));
}

#[test]
fn what_no_writer_writes_is_refused_even_under_a_right_mac() {
    let all = || segment(0, Pages::All);
    let bad = [
        // Beyond the end, twice, backwards.
        manifest(10, 10 * PAGE64, vec![segment(1, Pages::All)]),
        manifest(10, 10 * PAGE64, vec![segment(u32::MAX, Pages::All)]),
        manifest(10, 20 * PAGE64, vec![all(), all()]),
        manifest(10, 20 * PAGE64, vec![segment(1, Pages::All), all()]),
        manifest(10, 0, vec![all()]),
        // No page, every page, a page too many, too few bits.
        manifest(10, 10 * PAGE64, vec![segment(0, some(&[0, 0]))]),
        manifest(10, 10 * PAGE64, vec![segment(0, some(&[0xff, 0b11]))]),
        manifest(10, 10 * PAGE64, vec![segment(0, some(&[1, 0b100]))]),
        manifest(10, 10 * PAGE64, vec![segment(0, some(&[1]))]),
        manifest(10, 10 * PAGE64, vec![segment(0, some(&[1, 0, 0]))]),
        // More segments than there may be.
        manifest(1, (MAX_SEGMENTS + 1) * PAGE64, Vec::new()),
        manifest(1, u64::MAX, Vec::new()),
    ];
    for manifest in bad {
        assert_eq!(
            reread(&manifest),
            Err(ManifestError::Malformed),
            "{manifest:?}"
        );
    }
}

#[test]
fn another_version_blob_or_key_is_refused() {
    let mut bytes = manifest(10, 0, Vec::new())
        .encode(&keys())
        .expect("encoded");
    let other = BlobId::from(Uuid::from_u128(8));
    assert_eq!(
        Manifest::front(&bytes, other),
        Err(ManifestError::OtherBlob)
    );
    let front = Manifest::front(&bytes, blob()).expect("a front");
    let other = BlobKeys::derive(&DataKey::new([2; 32])).expect("derived");
    let opened = Manifest::open(&bytes, blob(), front, &other);
    assert_eq!(opened, Err(ManifestError::Forged));
    bytes[9] = 2;
    assert_eq!(read(&bytes), Err(ManifestError::Version));
}

#[test]
fn sixteen_tebibytes_fit_and_a_hole_costs_nothing() {
    let segments = u32::try_from(MAX_SEGMENTS).expect("few");
    let mut bits = vec![0xff; 128];
    bits[127] = 0x7f;
    let full = manifest(
        1024,
        16 << 40,
        (0..segments)
            .map(|index| segment(index, some(&bits)))
            .collect(),
    );
    let bytes = full.encode(&keys()).expect("encoded");
    assert!(bytes.len() <= LIMIT);
    assert_eq!(read(&bytes), Ok(full));
    let holes = manifest(1024, 16 << 40, Vec::new())
        .encode(&keys())
        .expect("encoded");
    let empty = manifest(1024, 0, Vec::new())
        .encode(&keys())
        .expect("encoded");
    assert_eq!(holes.len(), empty.len());
}

proptest! {
    #[test]
    fn no_bytes_make_reading_fail_but_with_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        keep in 0_usize..400,
    ) {
        prop_assert!(read(&bytes).is_err());
        // Also after a beginning that is right, and under a right MAC.
        let whole = manifest(10, 35 * PAGE64, vec![segment(0, Pages::All)]);
        let mut mixed = whole.encode(&keys()).expect("encoded");
        mixed.truncate(keep.min(mixed.len() - MAC));
        mixed.extend(bytes);
        let mac = hmac::sign(keys().manifest(), &mixed);
        mixed.extend_from_slice(mac.as_ref());
        if let Ok(read) = read(&mixed) {
            prop_assert_eq!(read.encode(&keys()).expect("encoded"), mixed);
        }
    }

    #[test]
    fn the_pages_before_a_page_are_counted_right(
        bits in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let pages = some(&bits);
        let mut count = 0;
        for position in 0..bits.len() as u32 * 8 {
            prop_assert_eq!(pages.before(position), count);
            count += u32::from(pages.has(position));
        }
        prop_assert_eq!(pages.before(bits.len() as u32 * 8), count);
        prop_assert!(!pages.has(bits.len() as u32 * 8));
    }
}
