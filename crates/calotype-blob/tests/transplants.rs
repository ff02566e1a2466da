//! Whole pages, segments, manifests and wraps that are taken out, put in, put back or put elsewhere: each is found.
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
use calotype_core::id::BlobId;
use calotype_core::keys::MasterKey;
use calotype_core::ports::{BlobCheck, Blobs, Depth, ResealOrder, ResealProgress, WrappedKey};
use calotype_core::{Error, ErrorKind};
use common::*;
use futures_util::StreamExt;

const SLOT: usize = PAGES as usize * SEALED_PAGE;

/// Two blobs of the same length, each under the key of another customer.
struct Pair {
    directory: tempfile::TempDir,
    blobs: SealedBlobs,
    bytes: [Vec<u8>; 2],
}

impl Pair {
    /// Three segments without a hole, the last of two pages, the second of which is short.
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = in_directory(directory.path());
        let bytes = [1, 2].map(|seed| noise(2 * SEGMENT + PAGE + 77, seed));
        for (number, master) in [(1, "k1"), (2, "k2")] {
            let blob = id(number);
            let key = blobs.fresh_key(blob, &customer(master)).await;
            let bytes = source(&bytes[number as usize - 1], 100_000);
            let key = key.expect("a key");
            let written = blobs.write(blob, &key, bytes, options()).await;
            written.expect("written");
        }
        Self {
            directory,
            blobs,
            bytes,
        }
    }

    fn file(&self, blob: BlobId, name: &str) -> PathBuf {
        home(self.directory.path(), blob).join(name)
    }

    async fn is_damaged(&self, what: &str) {
        is_damaged(&self.blobs, id(1), &self.bytes[0], what).await;
    }

    async fn both_are_whole(&self) {
        for (number, bytes) in [(1, &self.bytes[0]), (2, &self.bytes[1])] {
            assert!(get(&self.blobs, id(number)).await.expect("read") == *bytes);
        }
    }
}

/// A blob's directory.
fn home(root: &Path, blob: BlobId) -> PathBuf {
    let prefixes = fs::read_dir(root.join("blobs")).expect("the store");
    let homes = prefixes.map(|prefix| prefix.expect("a prefix").path().join(blob.to_string()));
    let there: Vec<_> = homes.filter(|home| home.is_dir()).collect();
    assert_eq!(there.len(), 1, "{there:?}");
    there[0].clone()
}

/// Reads a blob that must be damaged: right bytes come before the error, and none after it.
async fn is_damaged(blobs: &SealedBlobs, blob: BlobId, bytes: &[u8], what: &str) {
    let check = blobs
        .check(blob, None, Depth::Pages)
        .await
        .expect("checked");
    assert!(matches!(check, BlobCheck::Damaged(_)), "{what}: {check:?}");
    let Ok(reader) = blobs.open(blob, None).await else {
        return;
    };
    let mut stream = reader.read(0..reader.facts().size.bytes());
    let mut read = 0;
    while let Some(Ok(piece)) = stream.next().await {
        let wanted = &bytes[read..read + piece.len()];
        assert!(piece == wanted, "{what}: wrong bytes");
        read += piece.len();
    }
    assert!(read < bytes.len(), "{what}: read to the end");
    assert!(stream.next().await.is_none(), "{what}: it goes on");
}

#[tokio::test]
async fn a_page_or_segment_that_is_put_in_or_taken_out_anywhere_is_damage() {
    let pair = Pair::new().await;
    let (body, other) = (pair.file(id(1), "body"), pair.file(id(2), "body"));
    let whole = fs::read(&body).expect("read");
    let foreign = fs::read(other).expect("read");
    for unit in [SEALED_PAGE, SLOT] {
        for at in (0..whole.len()).step_by(unit) {
            let end = (at + unit).min(whole.len());
            let taken_out = [&whole[..at], &whole[end..]].concat();
            fs::write(&body, taken_out).expect("written");
            pair.is_damaged(&format!("without {at}..{end}")).await;
            // Its neighbour, one of another blob, zeros.
            let before = at.saturating_sub(unit);
            for piece in [
                &whole[before..before + (end - at)],
                &foreign[at..end],
                &vec![0; end - at],
            ] {
                let put_in = [&whole[..at], piece, &whole[at..]].concat();
                fs::write(&body, put_in).expect("written");
                // Twice the same at its own place: what follows has moved, and of the last page nothing follows.
                let same = piece == &whole[at..end];
                if !(same && end == whole.len()) {
                    pair.is_damaged(&format!("more at {at}")).await;
                }
            }
        }
    }
    fs::write(&body, &whole).expect("written");
    pair.both_are_whole().await;
}

#[tokio::test]
async fn a_segment_or_page_of_another_customers_blob_is_damage_in_the_same_place() {
    let pair = Pair::new().await;
    let files = [pair.file(id(1), "body"), pair.file(id(2), "body")];
    let whole = files.each_ref().map(|file| fs::read(file).expect("read"));
    for unit in [SEALED_PAGE, SLOT] {
        for at in (0..whole[0].len()).step_by(unit) {
            let end = (at + unit).min(whole[0].len());
            let mut swapped = whole.clone();
            swapped[0][at..end].copy_from_slice(&whole[1][at..end]);
            swapped[1][at..end].copy_from_slice(&whole[0][at..end]);
            for (file, bytes) in files.iter().zip(&swapped) {
                fs::write(file, bytes).expect("written");
            }
            let what = format!("swapped at {at}");
            pair.is_damaged(&what).await;
            is_damaged(&pair.blobs, id(2), &pair.bytes[1], &what).await;
        }
    }
    for (file, bytes) in files.iter().zip(&whole) {
        fs::write(file, bytes).expect("written");
    }
    pair.both_are_whole().await;
}

#[tokio::test]
async fn an_older_manifest_is_damage_over_newer_bytes_and_whole_only_over_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let blobs = in_directory(directory.path());
    let bytes = noise(2 * SEGMENT + 5, 1);
    put(&blobs, id(1), &bytes).await.expect("written");
    let (mut order, mut kept) = (None, Vec::new());
    for _ in 0..2 {
        let again = order_to(&blobs, id(2), &mut order).await;
        blobs.reseal(again).await.expect("resealed");
        let home = home(directory.path(), id(2));
        let read = |name| fs::read(home.join(name)).expect("read");
        kept.push((read("manifest"), read("body")));
        blobs.delete(id(2)).await.expect("deleted");
    }
    let again = order_to(&blobs, id(2), &mut order).await;
    blobs.reseal(again).await.expect("resealed");
    let home = home(directory.path(), id(2));
    for older in &kept {
        let newest = (
            fs::read(home.join("manifest")).expect("read"),
            fs::read(home.join("body")).expect("read"),
        );
        assert_ne!(newest.0, older.0);
        fs::write(home.join("manifest"), &older.0).expect("written");
        is_damaged(&blobs, id(2), &bytes, "an older manifest").await;
        fs::write(home.join("body"), &older.1).expect("written");
        assert!(get(&blobs, id(2)).await.expect("its own") == bytes);
        fs::write(home.join("manifest"), &newest.0).expect("written");
        is_damaged(&blobs, id(2), &bytes, "an older body").await;
        fs::write(home.join("body"), &newest.1).expect("written");
    }
    assert!(get(&blobs, id(2)).await.expect("whole again") == bytes);
}

/// The order of every attempt at a replica: the same data key.
async fn order_to(
    blobs: &SealedBlobs,
    target: BlobId,
    key: &mut Option<WrappedKey>,
) -> ResealOrder {
    let target_key = match key {
        Some(key) => key.clone(),
        None => {
            let fresh = blobs.fresh_key(target, &customer("k1")).await;
            key.insert(fresh.expect("a key")).clone()
        }
    };
    ResealOrder {
        source: id(1),
        source_key: None,
        target,
        target_key,
        project: "p1".parse().expect("an id"),
        progress: Arc::new(ResealProgress::default()),
    }
}

/// Each wrap that is one change away from this one.
fn changed(wrapped: &WrappedKey) -> Vec<WrappedKey> {
    let mut all = Vec::new();
    for bit in 0..wrapped.sealed.len() * 8 {
        let mut flipped = wrapped.clone();
        flipped.sealed[bit / 8] ^= 1 << (bit % 8);
        all.push(flipped);
    }
    for length in 0..wrapped.sealed.len() {
        let mut cut = wrapped.clone();
        cut.sealed.truncate(length);
        all.push(cut);
    }
    let mut long = wrapped.clone();
    long.sealed.push(0);
    all.push(long);
    all
}

#[tokio::test]
async fn a_wrap_that_was_changed_or_is_another_blobs_opens_nothing() {
    let pair = Pair::new().await;
    // Another node: it has to unwrap.
    let node = || in_directory(pair.directory.path());
    let of_second = pair.blobs.rewrap(id(2), None, &MasterKey::Service).await;
    let of_second = of_second.expect("a wrap");
    let of_first = pair.blobs.rewrap(id(1), None, &MasterKey::Service).await;
    let of_first = of_first.expect("a wrap");
    let whole = node().open(id(1), Some(&of_first)).await;
    assert!(whole.is_ok(), "the wrap as it is");
    let mut wrong = changed(&of_first);
    wrong.push(of_second);
    for wrapped in wrong {
        let opened = node().open(id(1), Some(&wrapped)).await;
        let error = Error::from(opened.map(drop).expect_err("opened"));
        assert_eq!(error.kind(), ErrorKind::Damaged, "{wrapped:?}");
    }
}

#[tokio::test]
async fn a_jobs_wrap_that_was_changed_makes_no_replica_and_a_resealed_blob_is_guarded_like_any() {
    let pair = Pair::new().await;
    let fresh = pair.blobs.fresh_key(id(3), &MasterKey::Service).await;
    let key = fresh.expect("a key");
    for wrapped in changed(&key) {
        let node = in_directory(pair.directory.path());
        let order = order_to(&node, id(3), &mut Some(wrapped)).await;
        let error = node.reseal(order).await.expect_err("resealed");
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    assert!(staged(&pair.blobs).await.is_empty());
    let order = order_to(&pair.blobs, id(3), &mut Some(key)).await;
    pair.blobs.reseal(order).await.expect("resealed");
    for name in ["body", "manifest"] {
        let file = pair.file(id(3), name);
        let whole = fs::read(&file).expect("read");
        let places = (0..whole.len()).step_by(if name == "body" { 7919 } else { 1 });
        for place in places {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (place % 8);
            fs::write(&file, flipped).expect("written");
            let what = format!("byte {place} of the {name}");
            is_damaged(&pair.blobs, id(3), &pair.bytes[0], &what).await;
        }
        fs::write(&file, whole).expect("written");
    }
    assert!(get(&pair.blobs, id(3)).await.expect("read") == pair.bytes[0]);
}
