//! Whatever is changed in the store is found, and no wrong byte is ever given out.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calotype_blob::SealedBlobs;
use calotype_blob::seal::{PAGE, SEALED_PAGE};
use calotype_blob::store::{Fault, Faults, FaultyStore, Operation};
use calotype_core::id::BlobId;
use calotype_core::ports::{BlobCheck, Blobs, Depth};
use calotype_core::{Error, ErrorKind};
use common::*;
use futures_util::StreamExt;
use proptest::prelude::*;

/// Reads all of a blob that must be damaged: only right bytes come before the error.
async fn assert_damaged(blobs: &SealedBlobs, blob: BlobId, bytes: &[u8], what: &str) {
    let check = blobs
        .check(blob, None, Depth::Pages)
        .await
        .expect("checked");
    assert!(matches!(check, BlobCheck::Damaged(_)), "{what}: {check:?}");
    let reader = match blobs.open(blob, None).await {
        Ok(reader) => reader,
        Err(error) => {
            assert_eq!(Error::from(error).kind(), ErrorKind::Damaged, "{what}");
            return;
        }
    };
    let mut stream = reader.read(0..reader.facts().size.bytes());
    let mut read = 0;
    loop {
        match stream.next().await.expect("an error before the end") {
            Ok(piece) => {
                assert!(
                    piece == bytes[read..read + piece.len()],
                    "{what}: wrong bytes"
                );
                read += piece.len();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{what}");
                break;
            }
        }
    }
    assert!(
        stream.next().await.is_none(),
        "{what}: goes on after the error"
    );
}

fn flip(path: &Path, byte: usize, bit: u8) {
    let mut bytes = fs::read(path).expect("read");
    bytes[byte] ^= 1 << bit;
    fs::write(path, bytes).expect("written");
}

struct OnDisk {
    directory: tempfile::TempDir,
    blobs: SealedBlobs,
    bytes: Vec<u8>,
}

impl OnDisk {
    /// A blob of two segments and a bit, one page of it zeros.
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = in_directory(directory.path());
        let mut bytes = noise(2 * SEGMENT + PAGE + 77, 3);
        bytes[PAGE..2 * PAGE].fill(0);
        put(&blobs, id(1), &bytes).await.expect("written");
        Self {
            directory,
            blobs,
            bytes,
        }
    }

    fn body(&self) -> PathBuf {
        find(self.directory.path(), "body")
    }

    fn manifest(&self) -> PathBuf {
        find(self.directory.path(), "manifest")
    }
}

#[tokio::test]
async fn a_flipped_bit_in_any_part_of_a_stored_page_is_damage() {
    let disk = OnDisk::new().await;
    let slot = PAGES as usize * SEALED_PAGE;
    let lengths = [
        (0, SEALED_PAGE),
        (SEALED_PAGE, SEALED_PAGE),
        (slot, SEALED_PAGE),
        (2 * slot, SEALED_PAGE),
        (2 * slot + SEALED_PAGE, 77 + 32),
    ];
    for (start, length) in lengths {
        // The length's field, the nonce, the ciphertext's ends, and the tag.
        for at in [0, 3, 4, 15, 16, length - 17, length - 16, length - 1] {
            for bit in [0, 7] {
                flip(&disk.body(), start + at, bit);
                let what = format!("byte {at} of the page at {start}");
                assert_damaged(&disk.blobs, id(1), &disk.bytes, &what).await;
                flip(&disk.body(), start + at, bit);
            }
        }
    }
    assert!(get(&disk.blobs, id(1)).await.expect("whole again") == disk.bytes);
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_the_manifest_is_damage() {
    let disk = OnDisk::new().await;
    let length = fs::read(disk.manifest()).expect("read").len();
    for byte in 0..length {
        flip(&disk.manifest(), byte, (byte % 8) as u8);
        let error = disk
            .blobs
            .open(id(1), None)
            .await
            .map(|_| ())
            .expect_err("damaged");
        assert_eq!(Error::from(error).kind(), ErrorKind::Damaged, "byte {byte}");
        flip(&disk.manifest(), byte, (byte % 8) as u8);
    }
    assert!(get(&disk.blobs, id(1)).await.expect("whole again") == disk.bytes);
}

#[tokio::test]
async fn a_manifest_that_is_cut_or_extended_anywhere_is_damage() {
    let disk = OnDisk::new().await;
    let whole = fs::read(disk.manifest()).expect("read");
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(disk.manifest(), longer).expect("written");
    assert_damaged(&disk.blobs, id(1), &disk.bytes, "longer").await;
    for length in 0..whole.len() {
        fs::write(disk.manifest(), &whole[..length]).expect("written");
        let error = disk
            .blobs
            .open(id(1), None)
            .await
            .map(|_| ())
            .expect_err("damaged");
        assert_eq!(
            Error::from(error).kind(),
            ErrorKind::Damaged,
            "{length} bytes"
        );
    }
}

#[tokio::test]
async fn a_body_cut_at_any_page_is_damage() {
    let disk = OnDisk::new().await;
    let whole = fs::read(disk.body()).expect("read");
    let pages = whole.len().div_ceil(SEALED_PAGE);
    for page in 0..pages {
        for length in [page * SEALED_PAGE, (page + 1) * SEALED_PAGE - 1] {
            if length < whole.len() {
                fs::write(disk.body(), &whole[..length]).expect("written");
                assert_damaged(&disk.blobs, id(1), &disk.bytes, "a cut body").await;
            }
        }
    }
    fs::remove_file(disk.body()).expect("removed");
    assert_damaged(&disk.blobs, id(1), &disk.bytes, "no body").await;
}

#[tokio::test]
async fn a_range_touches_its_own_pages_and_no_other() {
    let disk = OnDisk::new().await;
    let slot = PAGES as usize * SEALED_PAGE;
    // The page after the hole, which is the second one stored, and the first of the next segment.
    let spared = [SEALED_PAGE, slot];
    let mut body = fs::read(disk.body()).expect("read");
    for start in (0..body.len()).step_by(SEALED_PAGE) {
        if !spared.contains(&start) {
            body[start + 20] ^= 1;
        }
    }
    fs::write(disk.body(), body).expect("written");
    let reader = disk.blobs.open(id(1), None).await.expect("opened");
    for range in [
        PAGE..3 * PAGE,
        2 * PAGE + 5..2 * PAGE + 6,
        SEGMENT..SEGMENT + PAGE,
    ] {
        let part = collect(reader.read(range.start as u64..range.end as u64)).await;
        assert!(part.expect("read") == disk.bytes[range]);
    }
    for range in [PAGE - 1..2 * PAGE, 3 * PAGE - 1..3 * PAGE + 1] {
        let part = collect(reader.read(range.start as u64..range.end as u64)).await;
        assert_eq!(part.expect_err("damaged").kind(), ErrorKind::Damaged);
    }
}

#[tokio::test]
async fn bytes_after_the_last_page_are_never_read() {
    let disk = OnDisk::new().await;
    let mut longer = fs::read(disk.body()).expect("read");
    longer.extend_from_slice(&noise(SEALED_PAGE, 9));
    fs::write(disk.body(), longer).expect("written");
    assert!(get(&disk.blobs, id(1)).await.expect("read") == disk.bytes);
}

#[tokio::test]
async fn pages_and_segments_that_change_places_are_damage() {
    let disk = OnDisk::new().await;
    let whole = fs::read(disk.body()).expect("read");
    let slot = PAGES as usize * SEALED_PAGE;
    for (one, other, length) in [
        (0, SEALED_PAGE, SEALED_PAGE),
        (slot, 2 * slot, SEALED_PAGE),
        (0, slot, 3 * SEALED_PAGE),
    ] {
        let mut swapped = whole.clone();
        swapped[one..one + length].copy_from_slice(&whole[other..other + length]);
        swapped[other..other + length].copy_from_slice(&whole[one..one + length]);
        fs::write(disk.body(), swapped).expect("written");
        assert_damaged(&disk.blobs, id(1), &disk.bytes, "swapped").await;
    }
}

#[tokio::test]
async fn the_parts_of_another_blob_are_damage() {
    let disk = OnDisk::new().await;
    let (body, manifest) = (disk.body(), disk.manifest());
    let own = (
        fs::read(&body).expect("read"),
        fs::read(&manifest).expect("read"),
    );
    let other = tempfile::tempdir().expect("a directory");
    let others = in_directory(other.path());
    // The very same bytes, under another id and then under the same one.
    for blob in [id(2), id(1)] {
        put(&others, blob, &disk.bytes).await.expect("written");
        let foreign_body = fs::read(find(other.path(), "body")).expect("read");
        let foreign_manifest = fs::read(find(other.path(), "manifest")).expect("read");
        fs::write(&body, &foreign_body).expect("written");
        assert_damaged(&disk.blobs, id(1), &disk.bytes, "another's body").await;
        fs::write(&body, &own.0).expect("written");
        // Also a manifest of an earlier attempt at this blob.
        fs::write(&manifest, &foreign_manifest).expect("written");
        assert_damaged(&disk.blobs, id(1), &disk.bytes, "another's manifest").await;
        if blob == id(2) {
            fs::write(&body, &foreign_body).expect("written");
            assert_damaged(&disk.blobs, id(1), &disk.bytes, "all of another's").await;
        }
        fs::write(&body, &own.0).expect("written");
        fs::write(&manifest, &own.1).expect("written");
        others.delete(blob).await.expect("deleted");
    }
    assert!(get(&disk.blobs, id(1)).await.expect("whole again") == disk.bytes);
}

#[tokio::test]
async fn a_shallow_check_finds_lost_manifests_bodies_and_segments() {
    let disk = OnDisk::new().await;
    let (body, manifest) = (disk.body(), disk.manifest());
    let own = fs::read(&body).expect("read");
    fs::write(&body, &own[..own.len() - 1]).expect("written");
    let check = disk
        .blobs
        .check(id(1), None, Depth::Ends)
        .await
        .expect("checked");
    assert!(matches!(check, BlobCheck::Damaged(_)));
    fs::remove_file(&body).expect("removed");
    let check = disk
        .blobs
        .check(id(1), None, Depth::Ends)
        .await
        .expect("checked");
    assert!(matches!(check, BlobCheck::Damaged(_)));
    fs::write(&body, own).expect("written");
    fs::remove_file(manifest).expect("removed");
    let check = disk
        .blobs
        .check(id(1), None, Depth::Ends)
        .await
        .expect("checked");
    assert!(matches!(check, BlobCheck::Damaged(_)));
    assert_eq!(stored(&disk.blobs).await.len(), 1);
}

#[tokio::test]
async fn bytes_of_another_place_are_damage() {
    let faults = Faults::default();
    let blobs = sealed(Arc::new(FaultyStore::new(memory(), faults.clone())), PAGES);
    let bytes = noise(2 * SEGMENT, 1);
    put(&blobs, id(1), &bytes).await.expect("written");
    faults.inject(Some(Operation::Read), 0, Fault::Misdirected);
    let error = get(&blobs, id(1)).await.expect_err("misdirected");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(get(&blobs, id(1)).await.expect("read") == bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bit_that_a_read_flips_is_damage(bit in any::<u64>(), skip in 0_u64..3) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let faults = Faults::default();
            let blobs = sealed(Arc::new(FaultyStore::new(memory(), faults.clone())), 1);
            let bytes = noise(3 * PAGE, 1);
            put(&blobs, id(1), &bytes).await.expect("written");
            faults.inject(Some(Operation::Read), skip, Fault::Flip(bit));
            let error = get(&blobs, id(1)).await.expect_err("flipped");
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(faults.clear());
        });
    }
}
