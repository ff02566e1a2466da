//! A blob made of another's plaintext: the same bytes under another key, whatever comes in between.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use calotype_blob::seal::{PAGE, SEALED_PAGE};
use calotype_blob::store::{Fault, Faults, FaultyStore, FileStore, MemoryStore, Operation};
use calotype_blob::{ResealOptions, SealOptions, SealedBlobs};
use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::BlobId;
use calotype_core::keys::{KeyRole, MasterKey};
use calotype_core::ports::{BlobCheck, BlobFacts, Blobs, Depth, ResealOrder, WrappedKey};
use common::*;

const SOURCE: u128 = 1;
const TARGET: u128 = 2;

async fn order_of(blobs: &SealedBlobs, source: BlobId, target: BlobId) -> ResealOrder {
    let key = blobs.fresh_key(target, &customer("k1")).await;
    ResealOrder {
        source,
        source_key: None,
        target,
        target_key: key.expect("a key"),
        project: "p1".parse().expect("an id"),
        progress: Arc::default(),
    }
}

/// Bytes with whole segments, pages and ends of zeros among them.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = noise(length, 7);
    for (number, page) in bytes.chunks_mut(PAGE).enumerate() {
        if number / PAGES as usize == 1 || number % 3 == 2 {
            page.fill(0);
        }
    }
    bytes
}

fn lengths() -> [usize; 10] {
    [
        0,
        1,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        SEGMENT,
        SEGMENT + 1,
        3 * SEGMENT - 1,
        5 * SEGMENT + 2 * PAGE + 3,
        20 * SEGMENT,
    ]
}

async fn assert_same(blobs: &SealedBlobs, target: BlobId, bytes: &[u8], facts: &BlobFacts) {
    assert!(
        get(blobs, target).await.expect("read") == bytes,
        "{} bytes",
        bytes.len()
    );
    let check = blobs
        .check(target, None, Depth::Pages)
        .await
        .expect("checked");
    assert_eq!(check, BlobCheck::Whole(facts.clone()));
}

#[tokio::test]
async fn a_resealed_blob_has_the_sources_bytes_and_digests_under_a_key_of_its_own() {
    let [disk, memory] = on_disk_and_in_memory();
    for blobs in [
        in_memory(),
        in_directory(disk.path()),
        in_directory(memory.path()),
    ] {
        for (number, length) in lengths().into_iter().enumerate() {
            let (source, target) = (id(2 * number as u128), id(2 * number as u128 + 1));
            for bytes in [content(length), vec![0; length]] {
                let written = put(&blobs, source, &bytes).await.expect("written");
                let order = order_of(&blobs, source, target).await;
                let progress = Arc::clone(&order.progress);
                let facts = blobs.reseal(order).await.expect("resealed");
                assert_eq!(
                    (facts.size, &facts.digests),
                    (written.size, &written.digests)
                );
                assert_eq!(progress.done.load(Ordering::Relaxed), length as u64);
                assert_same(&blobs, target, &bytes, &facts).await;
                // The source is not needed any more.
                blobs.delete(source).await.expect("deleted");
                assert!(get(&blobs, target).await.expect("read") == bytes);
                blobs.delete(target).await.expect("deleted");
                assert!(staged(&blobs).await.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn segments_of_the_real_size_are_resealed_past_the_page_cache() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = FileStore::open(directory.path(), entropy()).expect("a store");
    let blobs = sealed(Arc::new(store), 1024);
    let mut bytes = noise((64 << 20) + 3 * PAGE + 1, 1);
    bytes[5 * PAGE..40 * PAGE].fill(0);
    put(&blobs, id(SOURCE), &bytes).await.expect("written");
    let order = order_of(&blobs, id(SOURCE), id(TARGET)).await;
    let facts = blobs.reseal(order).await.expect("resealed");
    assert_same(&blobs, id(TARGET), &bytes, &facts).await;
}

#[tokio::test]
async fn nothing_of_the_source_is_stored_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let blobs = in_directory(directory.path());
    put(&blobs, id(SOURCE), &noise(2 * SEGMENT, 3))
        .await
        .expect("written");
    let body = fs::read(find(directory.path(), "body")).expect("read");
    let order = order_of(&blobs, id(SOURCE), id(TARGET)).await;
    blobs.reseal(order).await.expect("resealed");
    blobs.delete(id(SOURCE)).await.expect("deleted");
    let resealed = fs::read(find(directory.path(), "body")).expect("read");
    assert_eq!(body.len(), resealed.len());
    for (old, new) in body.chunks(SEALED_PAGE).zip(resealed.chunks(SEALED_PAGE)) {
        // The first four bytes of a page are its length.
        assert!(
            old[4..]
                .chunks(16)
                .zip(new[4..].chunks(16))
                .all(|(old, new)| old != new)
        );
    }
}

/// A store that stops at the nth call, as a process that died there does.
struct Broken {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
    key: WrappedKey,
}

impl Broken {
    async fn new() -> Self {
        Self::new_in(tempfile::tempdir().expect("a directory")).await
    }

    async fn new_in(directory: tempfile::TempDir) -> Self {
        let bytes = content(6 * SEGMENT + PAGE + 5);
        let blobs = in_directory(directory.path());
        put(&blobs, id(SOURCE), &bytes).await.expect("written");
        let key = order_of(&blobs, id(SOURCE), id(TARGET)).await.target_key;
        Self {
            directory,
            bytes,
            key,
        }
    }

    fn order(&self) -> ResealOrder {
        ResealOrder {
            source: id(SOURCE),
            source_key: None,
            target: id(TARGET),
            target_key: self.key.clone(),
            project: "p1".parse().expect("an id"),
            progress: Arc::default(),
        }
    }

    fn faulty(&self, faults: &Faults) -> SealedBlobs {
        let store = FileStore::open(self.directory.path(), entropy()).expect("a store");
        sealed(Arc::new(FaultyStore::new(store, faults.clone())), PAGES)
    }
}

#[tokio::test]
async fn after_a_fault_at_any_call_the_next_attempt_makes_the_target_whole() {
    for fault in [
        Fault::Away,
        Fault::Full,
        Fault::Broken,
        Fault::DoneButFailed,
    ] {
        for skip in 0.. {
            let broken = Broken::new().await;
            let faults = Faults::default();
            let blobs = broken.faulty(&faults);
            faults.inject(None, skip, fault);
            let first = blobs.reseal(broken.order()).await;
            let struck = faults.clear();
            assert!(first.is_ok() || struck, "{fault:?} after {skip}");
            let after = in_directory(broken.directory.path());
            let facts = after.reseal(broken.order()).await.expect("resealed");
            assert_same(&after, id(TARGET), &broken.bytes, &facts).await;
            after.discard(id(TARGET)).await.expect("discarded");
            assert!(staged(&after).await.is_empty());
            if !struck {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_was_noted_is_not_done_again() {
    let broken = Broken::new().await;
    let faults = Faults::default();
    let options = SealOptions {
        reseal: ResealOptions {
            segments: Some(1),
            ..ResealOptions::default()
        },
        ..segments_of(PAGES)
    };
    let store = FileStore::open(broken.directory.path(), entropy()).expect("a store");
    let store = Arc::new(FaultyStore::new(store, faults.clone()));
    let blobs = sealed_by(keys(), store, options);
    // The fourth segment's end fails; by then three are finished, and are noted before the error is told.
    faults.inject(Some(Operation::Finish), 3, Fault::Away);
    blobs.reseal(broken.order()).await.expect_err("away");
    let before = faults.calls_of(Operation::Finish);
    let order = broken.order();
    let progress = Arc::clone(&order.progress);
    let facts = blobs.reseal(order).await.expect("resealed");
    // Of seven segments one is a hole.
    assert_eq!(faults.calls_of(Operation::Finish) - before, 3);
    assert_eq!(
        progress.done.load(Ordering::Relaxed),
        broken.bytes.len() as u64
    );
    for count in [&progress.resumed, &progress.noted] {
        assert!(count.load(Ordering::Relaxed) >= 4 * SEGMENT as u64);
    }
    assert_eq!(
        progress.resumed.load(Ordering::Relaxed),
        4 * SEGMENT as u64,
        "three segments and a hole"
    );
    assert_same(&blobs, id(TARGET), &broken.bytes, &facts).await;
}

#[tokio::test]
async fn a_reseal_that_is_dropped_anywhere_can_be_done_again() {
    for directory in on_disk_and_in_memory() {
        let broken = Broken::new_in(directory).await;
        for millis in 0..12 {
            let blobs = in_directory(broken.directory.path());
            let reseal = blobs.reseal(broken.order());
            let _ = tokio::time::timeout(Duration::from_millis(millis), reseal).await;
        }
        let blobs = in_directory(broken.directory.path());
        let facts = blobs.reseal(broken.order()).await.expect("resealed");
        assert_same(&blobs, id(TARGET), &broken.bytes, &facts).await;
    }
}

#[tokio::test]
async fn a_target_that_is_there_already_is_only_looked_at() {
    let broken = Broken::new().await;
    let blobs = in_directory(broken.directory.path());
    let facts = blobs.reseal(broken.order()).await.expect("resealed");
    blobs.delete(id(SOURCE)).await.expect("deleted");
    let again = blobs.reseal(broken.order()).await.expect("found");
    assert_eq!(again, facts);
}

#[tokio::test]
async fn an_attempt_that_another_overtook_takes_what_that_one_committed() {
    let broken = Broken::new().await;
    let slow = SealOptions {
        reseal: ResealOptions {
            job_rate: Some(SEGMENT as u64 * 4),
            ..ResealOptions::default()
        },
        ..segments_of(PAGES)
    };
    let store = FileStore::open(broken.directory.path(), entropy()).expect("a store");
    let zombie = sealed_by(keys(), Arc::new(store), slow);
    let order = broken.order();
    let progress = Arc::clone(&order.progress);
    let zombie = tokio::spawn(async move { zombie.reseal(order).await });
    while progress.done.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let blobs = in_directory(broken.directory.path());
    let facts = blobs.reseal(broken.order()).await.expect("resealed");
    let late = zombie.await.expect("it ran").expect("taken over");
    assert_eq!(late, facts);
    assert_same(&blobs, id(TARGET), &broken.bytes, &facts).await;
    assert!(staged(&blobs).await.is_empty());
}

#[tokio::test]
async fn a_job_that_waits_for_its_own_pace_keeps_no_other_from_working() {
    let options = SealOptions {
        reseal: ResealOptions {
            segments: Some(1),
            // Its second segment's time comes after days.
            job_rate: Some(1),
            ..ResealOptions::default()
        },
        ..segments_of(PAGES)
    };
    let blobs = Arc::new(sealed_by(keys(), Arc::new(memory()), options));
    let (slow, quick) = (noise(3 * SEGMENT, 1), noise(SEGMENT, 2));
    put(&blobs, id(10), &slow).await.expect("written");
    put(&blobs, id(20), &quick).await.expect("written");
    let order = order_of(&blobs, id(10), id(11)).await;
    let progress = Arc::clone(&order.progress);
    let waits = tokio::spawn({
        let blobs = Arc::clone(&blobs);
        async move { blobs.reseal(order).await }
    });
    while progress.done.load(Ordering::Relaxed) < SEGMENT as u64 {
        tokio::task::yield_now().await;
    }
    let order = order_of(&blobs, id(20), id(21)).await;
    blobs.reseal(order).await.expect("resealed");
    assert!(get(&blobs, id(21)).await.expect("read") == quick);
    assert_eq!(progress.done.load(Ordering::Relaxed), SEGMENT as u64);
    waits.abort();
}

#[tokio::test]
async fn damage_is_said_to_be_the_sources_only_where_it_is_known_to_be() {
    let broken = Broken::new().await;
    let blobs = || in_directory(broken.directory.path());
    let reseal = async |order: ResealOrder| {
        let error = blobs().reseal(order).await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Damaged);
        blobs().discard(id(TARGET)).await.expect("discarded");
        error.damaged_blob()
    };
    let flipped = |wrapped: &WrappedKey| {
        let mut wrapped = wrapped.clone();
        wrapped.sealed[20] ^= 1;
        wrapped
    };
    let mut order = broken.order();
    order.target_key = flipped(&order.target_key);
    assert_eq!(reseal(order).await, None, "the target's wrap");
    let mut order = broken.order();
    order.source_key = Some(flipped(&order.target_key));
    assert_eq!(
        reseal(order).await,
        None,
        "a wrap beside the source's bytes"
    );

    for name in ["body", "manifest"] {
        let path = find(broken.directory.path(), name);
        let whole = fs::read(&path).expect("read");
        let places = match name {
            "body" => vec![SEALED_PAGE + 1000],
            _ => (0..whole.len()).step_by(37).collect(),
        };
        for place in places {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            fs::write(&path, damaged).expect("written");
            // What a flip makes of the wrap may name a key that there is not.
            if let Err(error) = blobs().reseal(broken.order()).await
                && error.kind() == ErrorKind::Damaged
            {
                assert_eq!(error.damaged_blob(), Some(id(SOURCE)), "{name} {place}");
            }
            blobs().discard(id(TARGET)).await.expect("discarded");
            blobs().delete(id(TARGET)).await.expect("deleted");
        }
        fs::write(&path, whole).expect("written");
    }
}

#[tokio::test]
async fn a_committed_target_that_is_damaged_is_made_again() {
    let broken = Broken::new().await;
    let source = fs::read(find(broken.directory.path(), "manifest")).expect("read");
    let blobs = || in_directory(broken.directory.path());
    let facts = blobs().reseal(broken.order()).await.expect("resealed");
    let manifest = |content: &[u8]| {
        let home = broken.directory.path().join("blobs").join("00");
        fs::write(home.join(id(TARGET).to_string()).join("manifest"), content)
    };
    manifest(&source).expect("written");
    let again = blobs().reseal(broken.order()).await.expect("resealed");
    assert_eq!(again.digests, facts.digests);
    assert_same(&blobs(), id(TARGET), &broken.bytes, &again).await;
}

#[tokio::test]
async fn a_page_that_does_not_authenticate_ends_the_reseal_and_nothing_of_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let blobs = in_directory(directory.path());
    let bytes = noise(3 * SEGMENT, 5);
    put(&blobs, id(SOURCE), &bytes).await.expect("written");
    let path = find(directory.path(), "body");
    let whole = fs::read(&path).expect("read");
    for page in 0..whole.len() / SEALED_PAGE {
        let mut damaged = whole.clone();
        damaged[page * SEALED_PAGE + 1000] ^= 0x10;
        fs::write(&path, damaged).expect("written");
        let order = order_of(&blobs, id(SOURCE), id(TARGET)).await;
        let error = blobs.reseal(order.clone()).await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{page}");
        assert_eq!(error.code(), Some(ImsCode::IMG_0057));
        assert_eq!(error.damaged_blob(), Some(id(SOURCE)), "{page}");
        assert!(stored(&blobs).await.len() == 1, "{page}");
        // Of its segment, at most the pages before it are in the staged body.
        let staged = fs::read(find(&directory.path().join("staged"), "body")).expect("read");
        let slot = PAGES as usize * SEALED_PAGE;
        let (segment, place) = (page / PAGES as usize, page % PAGES as usize);
        let from = segment * slot + place * SEALED_PAGE;
        let to = staged.len().min((segment + 1) * slot);
        assert!(
            staged
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .all(|byte| *byte == 0)
        );
        blobs.discard(id(TARGET)).await.expect("discarded");
    }
}

#[tokio::test]
async fn each_keys_fault_has_the_code_of_its_role_and_the_work_goes_on_when_it_is_mended() {
    let keys = keys();
    let store = Arc::new(MemoryStore::new(Arc::new(TestClock::default())));
    let bytes = content(4 * SEGMENT);
    // A store for each node: what one has unwrapped the other has not.
    let node = || sealed_by(Arc::clone(&keys), store.clone(), segments_of(PAGES));
    let source_key = node().fresh_key(id(SOURCE), &customer("s")).await;
    let source_key = source_key.expect("a key");
    let written = node();
    let written = written.write(id(SOURCE), &source_key, source(&bytes, 99_999), options());
    // It is not the node that made the key: it asks for it.
    written.await.expect("written");
    let order = order_of(&node(), id(SOURCE), id(TARGET)).await;
    for (key, wrong, code) in [
        ("k1", Wrong::Missing, Some(ImsCode::IMG_0095)),
        ("k1", Wrong::Disabled, Some(ImsCode::IMG_0097)),
        ("k1", Wrong::Throttled, Some(ImsCode::IMG_0187)),
        ("k1", Wrong::Away, None),
        ("s", Wrong::Missing, Some(ImsCode::IMG_0101)),
        ("s", Wrong::Disabled, Some(ImsCode::IMG_0102)),
        ("s", Wrong::Throttled, Some(ImsCode::IMG_0187)),
        ("s", Wrong::Away, None),
    ] {
        keys.set(key, Some(wrong));
        let error = node().reseal(order.clone()).await.expect_err("refused");
        assert_eq!(error.code(), code, "{key} {wrong:?}");
        let passes = matches!(wrong, Wrong::Throttled | Wrong::Away);
        assert_eq!(error.is_transient(), passes, "{key} {wrong:?}");
        keys.set(key, None);
    }
    let facts = node().reseal(order).await.expect("resealed");
    assert_same(&node(), id(TARGET), &bytes, &facts).await;
    // What can't be looked into is not damaged.
    for (wrong, expected) in [
        (Wrong::Throttled, BlobCheck::Away),
        (Wrong::Away, BlobCheck::Away),
        (Wrong::Disabled, BlobCheck::Closed),
    ] {
        keys.set("s", Some(wrong));
        let check = node()
            .check(id(SOURCE), None, Depth::Pages)
            .await
            .expect("checked");
        assert_eq!(check, expected, "{wrong:?}");
        keys.set("s", None);
    }
    // The source's key opens the source, the target's the target, and neither the other.
    keys.set("s", Some(Wrong::Missing));
    assert!(get(&node(), id(TARGET)).await.expect("read") == bytes);
    get(&node(), id(SOURCE)).await.expect_err("shredded");
    let closed = node()
        .check(id(SOURCE), None, Depth::Pages)
        .await
        .expect("checked");
    assert_eq!(closed, BlobCheck::Closed);
}

#[tokio::test]
async fn a_rewrapped_blob_opens_by_either_wrap_while_that_ones_key_does() {
    let keys = keys();
    let store = Arc::new(MemoryStore::new(Arc::new(TestClock::default())));
    let node = || sealed_by(Arc::clone(&keys), store.clone(), segments_of(PAGES));
    let bytes = content(2 * SEGMENT);
    let key = node()
        .fresh_key(id(SOURCE), &customer("s"))
        .await
        .expect("a key");
    let first = node();
    let written = first.write(id(SOURCE), &key, source(&bytes, 99_999), options());
    written.await.expect("written");
    let before = keys.wrapped();
    let wrapped = node().rewrap(id(SOURCE), None, &customer("k1")).await;
    let wrapped = wrapped.expect("rewrapped");
    assert_eq!(keys.wrapped(), before + 1);
    let read = async |wrap: Option<&WrappedKey>| {
        let reader = node().open(id(SOURCE), wrap).await?;
        collect(reader.read(0..bytes.len() as u64)).await
    };
    assert!(read(None).await.expect("read") == bytes);
    assert!(read(Some(&wrapped)).await.expect("read") == bytes);
    keys.set("s", Some(Wrong::Missing));
    assert!(read(Some(&wrapped)).await.expect("read") == bytes);
    let error = read(None).await.expect_err("shredded");
    assert_eq!(error.code(), Some(ImsCode::IMG_0101));
    let check = async |wrap| {
        node()
            .check(id(SOURCE), wrap, Depth::Pages)
            .await
            .expect("checked")
    };
    assert_eq!(check(None).await, BlobCheck::Closed);
    assert!(matches!(check(Some(&wrapped)).await, BlobCheck::Whole(_)));
    let mut flipped = wrapped.clone();
    flipped.sealed[20] ^= 1;
    assert_eq!(
        check(Some(&flipped)).await,
        BlobCheck::Closed,
        "it says nothing of the bytes"
    );
    let again = node()
        .rewrap(id(SOURCE), Some(&wrapped), &MasterKey::Service)
        .await
        .expect("rewrapped");
    keys.set("k1", Some(Wrong::Disabled));
    assert!(read(Some(&again)).await.expect("read") == bytes);
    // A wrap is bound to its blob.
    put(&node(), id(TARGET), &bytes).await.expect("written");
    let other = node().open(id(TARGET), Some(&again)).await;
    assert_eq!(
        other
            .err()
            .map(|fault| fault.into_error(KeyRole::Source).kind()),
        Some(ErrorKind::Damaged)
    );
}
