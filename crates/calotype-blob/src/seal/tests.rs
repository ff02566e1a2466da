//! The format against a second implementation of FLOE, written from its specification with nothing in
//! common but the primitives.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use calotype_core::ErrorKind;
use uuid::Uuid;

use super::*;

const SIZE: SegmentSize = SegmentSize { pages: 3 };

fn blob() -> BlobId {
    BlobId::from(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
}

fn keys() -> BlobKeys {
    BlobKeys::derive(&DataKey::new([0x42; 32])).expect("derived")
}

/// RFC 2104 and RFC 5869, and FLOE's specification, read literally.
mod reference {
    use super::*;

    fn expand(prk: &hmac::Key, info: &[u8], length: usize) -> Vec<u8> {
        // One block is enough for all that is asked here.
        let mut block = hmac::sign(prk, &[info, &[1]].concat()).as_ref().to_vec();
        assert!(block.len() >= length);
        block.truncate(length);
        block
    }

    pub(super) fn page_key(data_key: &[u8]) -> Vec<u8> {
        let salt = hmac::Key::new(hmac::HMAC_SHA256, b"calotype blob 1");
        let prk = hmac::sign(&salt, data_key);
        let prk = hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref());
        expand(&prk, b"pages", 32)
    }

    pub(super) struct Message {
        key: Vec<u8>,
        iv: Vec<u8>,
        aad: Vec<u8>,
    }

    const PARAMETERS: [u8; 10] = [0, 0, 0, 1, 0, 32, 0, 0, 0, 32];

    impl Message {
        pub(super) fn new(key: &[u8], iv: &[u8], aad: &[u8]) -> Self {
            Self {
                key: key.to_vec(),
                iv: iv.to_vec(),
                aad: aad.to_vec(),
            }
        }

        fn kdf(&self, key: &[u8], purpose: &[u8], length: usize) -> Vec<u8> {
            let info = [&PARAMETERS[..], &self.iv, purpose, &self.aad].concat();
            expand(&hmac::Key::new(hmac::HMAC_SHA384, key), &info, length)
        }

        pub(super) fn header_tag(&self) -> Vec<u8> {
            self.kdf(&self.key, b"HEADER_TAG:", 32)
        }

        fn cipher(&self) -> LessSafeKey {
            let message_key = self.kdf(&self.key, b"MESSAGE_KEY:", 48);
            // Positions below 2^20 are masked to zero.
            let purpose = [&b"DEK:"[..], &[0; 8]].concat();
            let key = self.kdf(&message_key, &purpose, 32);
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key"))
        }

        fn aad(position: u32, last: bool) -> Vec<u8> {
            let mut aad = u64::from(position).to_be_bytes().to_vec();
            aad.push(u8::from(last));
            aad
        }

        pub(super) fn seal(
            &self,
            position: u32,
            last: bool,
            nonce: [u8; 12],
            page: &[u8],
        ) -> Vec<u8> {
            let mut sealed = page.to_vec();
            self.cipher()
                .seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(Self::aad(position, last)),
                    &mut sealed,
                )
                .expect("sealed");
            let length = if last {
                u32::try_from(4 + 12 + sealed.len()).expect("small")
            } else {
                u32::MAX
            };
            [&length.to_be_bytes()[..], &nonce, &sealed].concat()
        }

        pub(super) fn open(&self, position: u32, last: bool, stored: &[u8]) -> Vec<u8> {
            let length = u32::from_be_bytes(stored[..4].try_into().expect("four"));
            let wanted = if last {
                stored.len() as u64
            } else {
                u64::from(u32::MAX)
            };
            assert_eq!(u64::from(length), wanted);
            let nonce: [u8; 12] = stored[4..16].try_into().expect("twelve");
            let mut bytes = stored[16..].to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.cipher()
                .open_in_place(nonce, Aad::from(Self::aad(position, last)), &mut bytes)
                .expect("authentic")
                .to_vec()
        }
    }
}

fn aad(index: u32) -> Vec<u8> {
    let mut aad = b"calotype segment 1\0".to_vec();
    aad.extend(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes());
    aad.extend(index.to_be_bytes());
    aad.extend((3_u64 * 65_536).to_be_bytes());
    aad
}

const PAGES: [(u32, bool, usize); 4] = [
    (0, false, PAGE),
    (2, true, PAGE),
    (1, true, 1),
    (0, true, 777),
];

#[test]
fn what_the_sealer_makes_the_specification_opens() {
    let key = reference::page_key(&[0x42; 32]);
    for (position, last, length) in PAGES {
        let mut sealer = SegmentSealer::begin(&keys(), blob(), SIZE, 5).expect("begun");
        let message = reference::Message::new(&key, &sealer.header()[..32], &aad(5));
        assert_eq!(sealer.header()[32..], message.header_tag());
        let page = vec![0xc3; length];
        let mut out = vec![0; SEALED_PAGE];
        let stored = sealer
            .seal(position, last, &page, &mut out)
            .expect("sealed");
        assert_eq!(stored, length + PAGE_OVERHEAD);
        assert!(message.open(position, last, &out[..stored]) == page);
    }
}

#[test]
fn what_the_specification_makes_the_opener_opens() {
    let key = reference::page_key(&[0x42; 32]);
    let iv = [0x11; 32];
    let message = reference::Message::new(&key, &iv, &aad(5));
    let mut header = [0; HEADER];
    header[..32].copy_from_slice(&iv);
    header[32..].copy_from_slice(&message.header_tag());
    let mut opener = SegmentOpener::begin(&keys(), blob(), SIZE, 5, &header).expect("begun");
    for (position, last, length) in PAGES {
        let page = vec![0x3c; length];
        let stored = message.seal(position, last, [position as u8; 12], &page);
        let mut out = vec![0; length];
        opener
            .open(position, last, &stored, &mut out)
            .expect("opened");
        assert!(out == page);
    }
}

#[test]
fn what_is_on_disk_today_opens_tomorrow() {
    // A message of the reference under fixed key, IV and nonce. These bytes never change.
    let mut header = [0x11; HEADER];
    hex::decode_to_slice(HEADER_TAG, &mut header[32..]).expect("hexadecimal");
    let stored = hex::decode(STORED).expect("hexadecimal");
    let mut opener = SegmentOpener::begin(&keys(), blob(), SIZE, 5, &header).expect("begun");
    let mut page = [0; 8];
    opener.open(1, true, &stored, &mut page).expect("opened");
    assert_eq!(&page, b"calotype");
}

const HEADER_TAG: &str = "0b53832cd7ceb1cdc4a5c33b5269ebdc89bfbd3d240e92208f1448802a7367eb";
const STORED: &str =
    "00000028070707070707070707070707b7bae2167283efc38c44265d1320722c34626930fe720e85";

#[test]
fn a_page_opens_only_where_and_as_what_it_was_sealed() {
    let keys = keys();
    let mut sealer = SegmentSealer::begin(&keys, blob(), SIZE, 5).expect("begun");
    let header = *sealer.header();
    let mut stored = vec![0; SEALED_PAGE];
    sealer
        .seal(1, false, &[1; PAGE], &mut stored)
        .expect("sealed");
    let mut out = vec![0; PAGE];
    let begin = |keys, blob, size, index| SegmentOpener::begin(keys, blob, size, index, &header);
    let mut opener = begin(&keys, blob(), SIZE, 5).expect("begun");
    opener.open(1, false, &stored, &mut out).expect("opened");
    for (position, last) in [(0, false), (2, false), (1, true), (2, true)] {
        let error = opener
            .open(position, last, &stored, &mut out)
            .expect_err("moved");
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    let error = opener.open(1, true, &stored[..SEALED_PAGE - 1], &mut out[..PAGE - 1]);
    assert_eq!(error.expect_err("cut").kind(), ErrorKind::Damaged);

    let other_keys = BlobKeys::derive(&DataKey::new([0x43; 32])).expect("derived");
    let other_blob = BlobId::from(Uuid::from_u128(1));
    let other_size = SegmentSize { pages: 4 };
    for wrong in [
        begin(&other_keys, blob(), SIZE, 5),
        begin(&keys, other_blob, SIZE, 5),
        begin(&keys, blob(), other_size, 5),
        begin(&keys, blob(), SIZE, 4),
    ] {
        assert_eq!(
            wrong.err().map(|error| error.kind()),
            Some(ErrorKind::Damaged)
        );
    }
}

#[test]
fn nothing_is_sealed_twice_under_one_iv_or_nonce() {
    let keys = keys();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let mut sealer = SegmentSealer::begin(&keys, blob(), SIZE, 0).expect("begun");
        assert!(seen.insert(sealer.header()[..32].to_vec()));
        for position in 0..2 {
            let mut out = vec![0; SEALED_PAGE];
            sealer
                .seal(position, false, &[0; PAGE], &mut out)
                .expect("sealed");
            assert!(seen.insert(out[4..16].to_vec()));
        }
    }
}

#[test]
fn a_page_of_a_wrong_length_is_not_sealed() {
    let mut sealer = SegmentSealer::begin(&keys(), blob(), SIZE, 0).expect("begun");
    let mut out = vec![0; 2 * SEALED_PAGE];
    assert!(sealer.seal(0, false, &[1; PAGE - 1], &mut out).is_err());
    assert!(sealer.seal(0, true, &[1; PAGE + 1], &mut out).is_err());
    assert!(sealer.seal(0, true, &[1; 10], &mut out[..41]).is_err());
}

#[test]
fn sizes_are_bounded_and_cut_a_blob_without_gaps() {
    assert_eq!(SegmentSize::from_pages(0), None);
    assert_eq!(SegmentSize::from_pages(16_385), None);
    assert_eq!(SegmentSize::DEFAULT.bytes(), 64 << 20);
    for plaintext in [
        0,
        1,
        SIZE.bytes() - 1,
        SIZE.bytes(),
        SIZE.bytes() + 1,
        10 * SIZE.bytes(),
    ] {
        let count = u32::try_from(SIZE.segments(plaintext)).expect("few");
        let sum: u64 = (0..count)
            .map(|index| SIZE.segment_bytes(plaintext, index))
            .sum();
        assert_eq!(sum, plaintext);
        assert_eq!(SIZE.segment_bytes(plaintext, count), 0);
    }
}
