//! Known answers: segments that `vectors/segments.py` sealed, which has FLOE from its specification alone.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

use calotype_blob::seal::{BlobKeys, HEADER, SEALED_PAGE, SegmentOpener, SegmentSize};
use calotype_core::ErrorKind;
use calotype_core::id::BlobId;
use calotype_core::ports::DataKey;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

struct Vector {
    name: String,
    keys: BlobKeys,
    blob: BlobId,
    index: u32,
    size: SegmentSize,
    header: [u8; HEADER],
    pages: Vec<Page>,
}

#[derive(Clone)]
struct Page {
    position: u32,
    last: bool,
    stored: Vec<u8>,
    begins: Vec<u8>,
    sha256: String,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("a text")
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    hex::decode(text(value, name)).expect("digits")
}

fn number(value: &Value, name: &str) -> u32 {
    let number = value[name].as_u64().expect("a number");
    number.try_into().expect("a small number")
}

fn page(value: &Value) -> Page {
    let (start, step) = (number(value, "start"), number(value, "step"));
    let ciphertext = (0..number(value, "length")).map(|i| (step * i + start) as u8);
    Page {
        position: number(value, "position"),
        last: value["last"] == true,
        stored: [
            bytes(value, "head"),
            ciphertext.collect(),
            bytes(value, "tag"),
        ]
        .concat(),
        begins: bytes(value, "plaintext_begins"),
        sha256: text(value, "plaintext_sha256").to_owned(),
    }
}

fn vectors() -> Vec<Vector> {
    let all: Vec<Value> =
        serde_json::from_str(include_str!("vectors/segments.json")).expect("vectors");
    assert!(all.len() >= 6);
    let vector = |value: &Value| {
        let key = bytes(value, "data_key").try_into().expect("a data key");
        let whole = bytes(value, "header");
        let header = &whole[whole.len() - HEADER..];
        Vector {
            name: text(value, "name").to_owned(),
            keys: BlobKeys::derive(&DataKey::new(key)).expect("keys"),
            blob: Uuid::from_slice(&bytes(value, "blob"))
                .expect("an id")
                .into(),
            index: number(value, "index"),
            size: SegmentSize::from_pages(number(value, "segment_pages")).expect("a size"),
            header: header.try_into().expect("a header"),
            pages: value["pages"]
                .as_array()
                .expect("pages")
                .iter()
                .map(page)
                .collect(),
        }
    };
    all.iter().map(vector).collect()
}

impl Vector {
    fn opener(&self) -> SegmentOpener {
        self.opener_of(self.blob, self.size, self.index, &self.header)
            .expect("the header authenticates")
    }

    fn opener_of(
        &self,
        blob: BlobId,
        size: SegmentSize,
        index: u32,
        header: &[u8; HEADER],
    ) -> Option<SegmentOpener> {
        match SegmentOpener::begin(&self.keys, blob, size, index, header) {
            Ok(opener) => Some(opener),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged);
                None
            }
        }
    }

    fn refuses(&self, page: &Page) {
        let length = page.stored.len().saturating_sub(SEALED_PAGE - PAGE);
        let mut out = vec![0; length];
        let opened = self
            .opener()
            .open(page.position, page.last, &page.stored, &mut out);
        assert!(opened.is_err(), "{}: page {}", self.name, page.position);
    }
}

const PAGE: usize = calotype_blob::seal::PAGE;

#[test]
fn what_was_sealed_by_the_specification_alone_opens() {
    for vector in vectors() {
        let mut opener = vector.opener();
        // In the order of the pages, and in the other.
        let (there, back) = (vector.pages.iter(), vector.pages.iter().rev());
        for page in there.chain(back) {
            let mut out = vec![0; page.stored.len() - (SEALED_PAGE - PAGE)];
            opener
                .open(page.position, page.last, &page.stored, &mut out)
                .expect("a page");
            assert!(out.starts_with(&page.begins[..page.begins.len().min(out.len())]));
            let sha256 = hex::encode(Sha256::digest(&out));
            assert_eq!(sha256, page.sha256, "{}: {}", vector.name, page.position);
        }
    }
}

#[test]
fn what_was_sealed_by_the_specification_alone_opens_nowhere_else_and_not_when_it_was_changed() {
    for vector in vectors() {
        for bit in 0..HEADER * 8 {
            let mut header = vector.header;
            header[bit / 8] ^= 1 << (bit % 8);
            let opened = vector.opener_of(vector.blob, vector.size, vector.index, &header);
            assert!(opened.is_none(), "{}: bit {bit} of the header", vector.name);
        }
        let elsewhere = Uuid::from_u128(1).into();
        let other = SegmentSize::from_pages(5).expect("a size");
        for (blob, size, index) in [
            (elsewhere, vector.size, vector.index),
            (vector.blob, other, vector.index),
            (vector.blob, vector.size, vector.index + 1),
        ] {
            let opened = vector.opener_of(blob, size, index, &vector.header);
            assert!(opened.is_none(), "{}", vector.name);
        }
        for page in &vector.pages {
            let length = page.stored.len();
            // Length, nonce, ciphertext and tag: every bit at both ends, and one in each part between.
            let ends = (0..24 * 8).chain((length - 24.min(length)) * 8..length * 8);
            for bit in ends.filter(|bit| bit / 8 < length) {
                let mut changed = page.clone();
                changed.stored[bit / 8] ^= 1 << (bit % 8);
                vector.refuses(&changed);
            }
            for place in (24..length).step_by(1021) {
                let mut changed = page.clone();
                changed.stored[place] ^= 1;
                vector.refuses(&changed);
            }
            let mut cut = page.clone();
            cut.stored.pop();
            vector.refuses(&cut);
            let mut long = page.clone();
            long.stored.push(0);
            vector.refuses(&long);
            vector.refuses(&Page {
                position: page.position + 1,
                ..page.clone()
            });
            vector.refuses(&Page {
                last: !page.last,
                ..page.clone()
            });
        }
    }
}
