//! What was written is read back, in whole and in part, on every store.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use bytes::Bytes;
use calotype_blob::conformance;
use calotype_blob::seal::{PAGE, PAGE_OVERHEAD, SEALED_PAGE};
use calotype_blob::store::{Faults, FaultyStore, FileStore};
use calotype_core::ports::{BlobCheck, Blobs, Depth};
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind};
use common::*;
use futures_util::{StreamExt, stream};
use md5::{Digest, Md5};
use proptest::prelude::*;

#[tokio::test]
async fn every_store_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = FileStore::open(directory.path(), entropy()).expect("a store");
    conformance::all(&file).await.expect("the file store");
    conformance::all(&memory()).await.expect("the memory store");
    let faulty = FaultyStore::new(memory(), Faults::default());
    conformance::all(&faulty).await.expect("the faulty store");
}

#[tokio::test]
async fn bytes_of_any_length_come_back_with_their_digests() {
    let directory = tempfile::tempdir().expect("a directory");
    let lengths = [
        0,
        1,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        SEGMENT - 1,
        SEGMENT,
        SEGMENT + 1,
        3 * SEGMENT + PAGE + 7,
        9 * SEGMENT,
    ];
    for blobs in [in_memory(), in_directory(directory.path())] {
        for (number, length) in lengths.into_iter().enumerate() {
            let (blob, bytes) = (id(number as u128), noise(length, number as u64));
            let mut wanted = options();
            wanted.expected_size = Some(ByteSize::new(length as u64));
            wanted.max_size = ByteSize::new(length as u64);
            let progress = Arc::clone(&wanted.progress);
            let facts = write(&blobs, blob, source(&bytes, 70_001), wanted)
                .await
                .expect("written");
            assert_eq!(facts.size.bytes(), length as u64);
            assert_eq!(progress.load(Ordering::Relaxed), length as u64);
            let hexed = |algorithm| hex::encode(digest(algorithm, &bytes));
            assert_eq!(facts.digests.md5, Some(hex::encode(Md5::digest(&bytes))));
            assert_eq!(facts.digests.sha256, Some(hexed(&SHA256)));
            assert_eq!(facts.digests.sha512, Some(hexed(&SHA512)));
            assert!(get(&blobs, blob).await.expect("read") == bytes, "{length}");
            let paced = Depth::PagesAt(ByteSize::gib(1));
            for depth in [Depth::Ends, Depth::Pages, paced] {
                let check = blobs.check(blob, None, depth).await.expect("checked");
                assert_eq!(check, BlobCheck::Whole(facts.clone()));
            }
        }
    }
}

#[tokio::test]
async fn a_segment_of_the_real_size_and_a_byte_more_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = FileStore::open(directory.path(), entropy()).expect("a store");
    let blobs = sealed(Arc::new(store), 1024);
    let bytes = noise((64 << 20) + 1, 1);
    write(&blobs, id(1), source(&bytes, 4 << 20), options())
        .await
        .expect("written");
    assert!(get(&blobs, id(1)).await.expect("read") == bytes);
    let body = std::fs::metadata(find(directory.path(), "body")).expect("a body");
    let sealed = 1024 * SEALED_PAGE + 1 + PAGE_OVERHEAD;
    assert_eq!(body.len(), sealed as u64);
}

#[tokio::test]
async fn pages_of_zeros_take_no_room_and_read_as_zeros() {
    let blobs = in_memory();
    let mut bytes = vec![0; 5 * SEGMENT + 100];
    bytes[PAGE] = 1;
    bytes[3 * PAGE - 1] = 1;
    bytes[4 * SEGMENT - 1] = 1;
    let sparse = put(&blobs, id(1), &bytes).await.expect("written");
    let holes = put(&blobs, id(2), &vec![0; 5 * SEGMENT + 100])
        .await
        .expect("written");
    let empty = put(&blobs, id(3), &[]).await.expect("written");
    // Two segments with pages, each with its index, form, header and bitmap.
    let segments = 2 * (4 + 1 + 64 + 1);
    let stored = sparse.stored.bytes() - holes.stored.bytes();
    assert_eq!(stored, 3 * SEALED_PAGE as u64 + segments);
    assert_eq!(holes.stored, empty.stored);
    assert!(get(&blobs, id(1)).await.expect("read") == bytes);
    assert!(get(&blobs, id(2)).await.expect("read") == vec![0; 5 * SEGMENT + 100]);
    for range in [
        PAGE..PAGE + 1,
        0..PAGE + 1,
        4 * SEGMENT - 2..4 * SEGMENT + 2,
    ] {
        let reader = blobs.open(id(1), None).await.expect("opened");
        let part = collect(reader.read(range.start as u64..range.end as u64)).await;
        assert!(part.expect("read") == bytes[range]);
    }
}

#[tokio::test]
async fn more_than_the_limit_is_refused_and_leaves_nothing() {
    let blobs = in_memory();
    let bytes = noise(2 * SEGMENT, 1);
    let mut wanted = options();
    wanted.max_size = ByteSize::new(bytes.len() as u64 - 1);
    let progress = Arc::clone(&wanted.progress);
    let endless = stream::repeat_with(|| Ok(bytes::Bytes::from_static(&[7; 65_536]))).boxed();
    let error = write(&blobs, id(1), endless, wanted)
        .await
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(progress.load(Ordering::Relaxed) <= bytes.len() as u64);
    assert!(stored(&blobs).await.is_empty());
    assert!(staged(&blobs).await.is_empty());
}

#[tokio::test]
async fn another_size_than_the_announced_one_is_refused_and_leaves_nothing() {
    let blobs = in_memory();
    let bytes = noise(SEGMENT + 5, 1);
    for announced in [0, SEGMENT + 4, SEGMENT + 6, 9 * SEGMENT] {
        let mut wanted = options();
        wanted.expected_size = Some(ByteSize::new(announced as u64));
        let refused = write(&blobs, id(1), source(&bytes, 1000), wanted).await;
        let error = refused.expect_err("another size");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    assert!(stored(&blobs).await.is_empty());
    assert!(staged(&blobs).await.is_empty());
}

#[tokio::test]
async fn a_source_that_fails_is_the_writes_own_error() {
    let blobs = in_memory();
    for before in [0, 1, PAGE, 3 * SEGMENT + 5] {
        let failing = source(&noise(before, 1), 1000)
            .chain(stream::once(async {
                Err(calotype_core::Error::new(
                    ErrorKind::Gone,
                    "The client is gone.",
                ))
            }))
            .boxed();
        let error = write(&blobs, id(1), failing, options())
            .await
            .expect_err("failed");
        assert_eq!(error.kind(), ErrorKind::Gone);
    }
    assert!(staged(&blobs).await.is_empty());
}

#[tokio::test]
async fn a_write_that_is_dropped_is_never_committed() {
    let blobs = in_memory();
    let stalled = source(&noise(3 * SEGMENT, 1), 1 << 20)
        .chain(stream::pending())
        .boxed();
    let wanted = options();
    let progress = Arc::clone(&wanted.progress);
    let write = write(&blobs, id(1), stalled, wanted);
    let all_taken = async {
        while progress.load(Ordering::Relaxed) < 3 * SEGMENT as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = write => panic!("the source never ends"),
        () = all_taken => {}
    }
    assert!(stored(&blobs).await.is_empty());
    assert_eq!(staged(&blobs).await.len(), 1);
    blobs.discard(id(1)).await.expect("discarded");
    assert!(staged(&blobs).await.is_empty());
    let bytes = noise(10, 2);
    put(&blobs, id(1), &bytes)
        .await
        .expect("the id can be written again");
    assert_eq!(get(&blobs, id(1)).await.expect("read"), bytes);
}

#[tokio::test]
async fn a_dropped_reader_stops_reading() {
    let faults = Faults::default();
    let blobs = sealed(Arc::new(FaultyStore::new(memory(), faults.clone())), PAGES);
    put(&blobs, id(1), &noise(200 * SEGMENT, 1))
        .await
        .expect("written");
    let reader = blobs.open(id(1), None).await.expect("opened");
    let before = faults.calls();
    let mut stream = reader.read(0..200 * SEGMENT as u64);
    stream.next().await.expect("a piece").expect("read");
    drop(stream);
    // The reader, the store and the blob are free once the reading task has let go of them.
    let blob = Arc::downgrade(&reader);
    drop(reader);
    while blob.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(faults.calls() - before < 20);
}

#[tokio::test]
async fn two_writes_of_one_blob_at_once_leave_one_of_them_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    for blobs in [in_memory(), in_directory(directory.path())] {
        let (one, other) = (noise(3 * SEGMENT + 1, 1), noise(2 * SEGMENT + 9, 2));
        let written = tokio::join!(put(&blobs, id(1), &one), put(&blobs, id(1), &other));
        let read = get(&blobs, id(1)).await.expect("read");
        let error = match written {
            (Ok(_), Err(error)) => {
                assert!(read == one);
                error
            }
            (Err(error), Ok(_)) => {
                assert!(read == other);
                error
            }
            both => panic!("{both:?}"),
        };
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(staged(&blobs).await.is_empty());
    }
}

#[tokio::test]
async fn a_range_outside_the_blob_is_refused_and_an_empty_one_is_empty() {
    let blobs = in_memory();
    put(&blobs, id(1), &noise(100, 1)).await.expect("written");
    let reader = blobs.open(id(1), None).await.expect("opened");
    assert!(
        collect(reader.read(100..100))
            .await
            .expect("read")
            .is_empty()
    );
    for range in [0..101, 101..101, 50..u64::MAX] {
        let error = collect(reader.read(range)).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::RangeNotSatisfiable);
    }
}

#[tokio::test]
async fn a_deleted_blob_is_missing_and_what_was_open_stays_readable() {
    let directory = tempfile::tempdir().expect("a directory");
    let blobs = in_directory(directory.path());
    let bytes = noise(SEGMENT + 1, 1);
    put(&blobs, id(1), &bytes).await.expect("written");
    let reader = blobs.open(id(1), None).await.expect("opened");
    blobs.delete(id(1)).await.expect("deleted");
    blobs.delete(id(1)).await.expect("deleted again");
    assert_eq!(
        blobs
            .check(id(1), None, Depth::Pages)
            .await
            .expect("checked"),
        BlobCheck::Missing
    );
    let error = blobs.open(id(1), None).await.map(|_| ()).expect_err("gone");
    assert_eq!(Error::from(error).kind(), ErrorKind::Damaged);
    assert!(
        collect(reader.read(0..bytes.len() as u64))
            .await
            .expect("read")
            == bytes
    );
    assert!(staged(&blobs).await.is_empty());
    assert!(
        blobs
            .free_space(None)
            .await
            .expect("asked")
            .expect("known")
            .bytes()
            > 0
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any layout of noise and zeros, in chunks of any size; any range of it.
    #[test]
    fn any_range_of_any_blob_reads_as_the_reference(
        runs in prop::collection::vec((any::<bool>(), 1_usize..3 * PAGE), 0..12),
        chunk in 1_usize..2 * SEGMENT,
        ranges in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 8),
    ) {
        let mut reference = Vec::new();
        for (number, (zeros, length)) in runs.into_iter().enumerate() {
            if zeros {
                reference.resize(reference.len() + length, 0);
            } else {
                reference.extend(noise(length, number as u64 + 1));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let blobs = in_memory();
            let facts = write(&blobs, id(1), source(&reference, chunk.max(512)), options())
                .await
                .expect("written");
            assert_eq!(facts.size.bytes(), reference.len() as u64);
            let reader = blobs.open(id(1), None).await.expect("opened");
            for (one, other) in ranges {
                let (one, other) = (one.index(reference.len() + 1), other.index(reference.len() + 1));
                let (start, end) = (one.min(other), one.max(other));
                let part = collect(reader.read(start as u64..end as u64)).await.expect("read");
                assert!(part == reference[start..end], "{start}..{end}");
            }
        });
    }

    /// Short chunks are put together and long ones are not: what is stored is the same however the bytes come.
    #[test]
    fn a_blob_is_the_same_however_its_stream_is_cut(
        zeros in 0_usize..3 * PAGE,
        length in 0_usize..40 * PAGE,
        cuts in prop::collection::vec(
            prop_oneof![
                1_usize..5_000,
                (1_usize..20, 0_usize..3).prop_map(|(pages, more)| pages * PAGE + more - 1),
                100_000_usize..1_300_000,
            ],
            1..12,
        ),
    ) {
        let mut reference = noise(length, 1);
        reference.resize(length + zeros, 0);
        reference.extend(noise(length / 3, 2));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let blobs = in_memory();
            let bytes = Bytes::from(reference.clone());
            let (mut at, mut chunks) = (0, Vec::new());
            for cut in cuts.into_iter().cycle() {
                let end = (at + cut).min(bytes.len());
                chunks.push(Ok(bytes.slice(at..end)));
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            let whole = write(&blobs, id(1), source(&reference, 4096), options()).await.expect("written");
            let cut = stream::iter(chunks).boxed();
            let cut = write(&blobs, id(2), cut, options()).await.expect("written");
            assert_eq!(cut, whole);
            let reader = blobs.open(id(2), None).await.expect("opened");
            let read = collect(reader.read(0..reference.len() as u64)).await.expect("read");
            assert!(read == reference);
        });
    }
}
