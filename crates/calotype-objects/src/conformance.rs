//! What every [`Objects`] must do, as functions that an adapter's tests call. Each takes a store with a bucket of the
//! given name, and panics where a promise is broken.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::codes::ImsCode;
use calotype_core::id::JobId;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{ObjectFacts, Objects};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};
use futures_util::TryStreamExt as _;
use rustix::fs::MemfdFlags;

/// Larger than what any store reads or writes at once.
const LARGE: usize = 41 * (1 << 20) + 123;

/// Runs all of them.
///
/// # Errors
/// What the store says.
pub async fn all(store: &dyn Objects, bucket: &str) -> Result<()> {
    what_is_written_is_read_back(store, bucket).await?;
    any_range_is_read(store, bucket).await?;
    an_object_is_seen_when_it_is_finished(store, bucket).await?;
    an_object_is_never_replaced(store, bucket).await?;
    a_file_becomes_an_object(store, bucket).await?;
    an_object_tells_whose_it_is(store, bucket).await?;
    an_object_is_removed_only_as_it_was(store, bucket).await?;
    what_is_not_there_is_told_apart(store, bucket).await?;
    an_object_that_is_another_is_not_read(store, bucket).await
}

fn at(bucket: &str, key: &str) -> Result<ObjectAddress> {
    ObjectAddress::parse(&format!("{bucket}:{key}"))
}

/// Bytes of which no two megabytes are alike.
fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8)
        .collect()
}

async fn write(store: &dyn Objects, at: &ObjectAddress, bytes: &[u8]) -> Result<ObjectFacts> {
    let size = ByteSize::new(bytes.len() as u64);
    let mut writer = store.create(at, size, None).await?;
    for piece in bytes.chunks(1_000_003) {
        writer.append(Bytes::copy_from_slice(piece)).await?;
    }
    writer.finish().await
}

async fn read(
    store: &dyn Objects,
    at: &ObjectAddress,
    facts: &ObjectFacts,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = store.read(at, facts, range).try_collect().await?;
    Ok(pieces.concat())
}

/// What is in a file becomes an object, of few bytes and of many, in a place that is free.
///
/// # Errors
/// What the store says.
pub async fn a_file_becomes_an_object(store: &dyn Objects, bucket: &str) -> Result<()> {
    for length in [1, LARGE] {
        let at = at(bucket, &format!("put/of/{length}"))?;
        let bytes = content(length);
        let (job, other) = (job(1)?, job(2)?);
        let memory = rustix::fs::memfd_create("object", MemfdFlags::CLOEXEC);
        let mut file = File::from(memory.map_err(Error::internal)?);
        file.write_all(&bytes).map_err(Error::internal)?;
        let file = Arc::new(file);
        let facts = store.put(&at, Arc::clone(&file), Some(&job)).await?;
        assert_eq!(facts.size, ByteSize::new(length as u64));
        assert_eq!(store.look(&at).await?, facts);
        assert_eq!(store.made_by(&at, &job).await?, Some(facts.clone()));
        assert_eq!(store.made_by(&at, &other).await?, None);
        let again = store.put(&at, file, None).await;
        assert_eq!(code(again), Some(ImsCode::IMG_0070), "{length}");
        let there = read(store, &at, &facts, 0..length as u64).await?;
        assert!(there == bytes, "{length}");
    }
    Ok(())
}

/// An object tells which job made it, whether it was written at once or in parts, and one that nobody's job made tells none.
///
/// # Errors
/// What the store says.
pub async fn an_object_tells_whose_it_is(store: &dyn Objects, bucket: &str) -> Result<()> {
    let (job, other) = (job(1)?, job(2)?);
    for length in [1, LARGE] {
        let at = at(bucket, &format!("made/{length}"))?;
        let size = ByteSize::new(length as u64);
        let mut writer = store.create(&at, size, Some(&job)).await?;
        writer.append(Bytes::from(content(length))).await?;
        let facts = writer.finish().await?;
        assert_eq!(store.made_by(&at, &job).await?, Some(facts));
        assert_eq!(store.made_by(&at, &other).await?, None);
    }
    let nobodys = at(bucket, "made/by/nobody")?;
    write(store, &nobodys, b"nobody's").await?;
    assert_eq!(store.made_by(&nobodys, &job).await?, None);
    let nothing = at(bucket, "made/by/none")?;
    let refused = store.made_by(&nothing, &job).await;
    assert_eq!(code(refused), Some(ImsCode::IMG_0057));
    Ok(())
}

fn job(number: u8) -> Result<JobId> {
    let parsed = format!("{number:032x}").parse();
    parsed.map_err(|_| Error::internal("no job's id"))
}

/// An object goes, and no other one that took its place.
///
/// # Errors
/// What the store says.
pub async fn an_object_is_removed_only_as_it_was(store: &dyn Objects, bucket: &str) -> Result<()> {
    let at = at(bucket, "removed")?;
    let first = write(store, &at, b"first").await?;
    store.remove(&at, &first).await?;
    assert_eq!(code(store.look(&at).await), Some(ImsCode::IMG_0057));
    let second = write(store, &at, b"another").await?;
    let refused = store.remove(&at, &first).await;
    assert_eq!(code(refused), Some(ImsCode::IMG_0057));
    assert_eq!(store.look(&at).await?, second);
    store.remove(&at, &second).await?;
    let gone = store.remove(&at, &second).await;
    assert_eq!(code(gone), Some(ImsCode::IMG_0057));
    Ok(())
}

fn code<T>(outcome: Result<T>) -> Option<ImsCode> {
    outcome.err().as_ref().and_then(Error::code)
}

/// An object has the bytes that it was given, whatever its size and wherever it lies.
///
/// # Errors
/// What the store says.
pub async fn what_is_written_is_read_back(store: &dyn Objects, bucket: &str) -> Result<()> {
    for (key, length) in [("one", 1), ("deep/er/large", LARGE), ("ä+%20~?#&=", 70_000)] {
        let (at, bytes) = (at(bucket, key)?, content(length));
        let written = write(store, &at, &bytes).await?;
        assert_eq!(written.size, ByteSize::new(length as u64), "{key}");
        let facts = store.look(&at).await?;
        assert_eq!(facts, written, "{key}");
        let found = read(store, &at, &facts, 0..length as u64).await?;
        assert!(found == bytes, "{key} differs");
    }
    Ok(())
}

/// A range is given as it is asked for, to the byte.
///
/// # Errors
/// What the store says.
pub async fn any_range_is_read(store: &dyn Objects, bucket: &str) -> Result<()> {
    let (at, bytes) = (at(bucket, "ranges")?, content(LARGE));
    let facts = write(store, &at, &bytes).await?;
    let all = LARGE as u64;
    for range in [
        0..0,
        0..1,
        5..6,
        (1 << 20) - 1..(1 << 20) + 1,
        7..all - 7,
        all - 1..all,
        all..all,
    ] {
        let expected = &bytes[range.start as usize..range.end as usize];
        let found = read(store, &at, &facts, range.clone()).await?;
        assert!(found == expected, "{range:?} differs");
    }
    Ok(())
}

/// A write that was not finished leaves nothing that is seen.
///
/// # Errors
/// What the store says.
pub async fn an_object_is_seen_when_it_is_finished(
    store: &dyn Objects,
    bucket: &str,
) -> Result<()> {
    let at = at(bucket, "abandoned")?;
    let mut writer = store.create(&at, ByteSize::new(3), None).await?;
    writer.append(Bytes::from_static(b"abc")).await?;
    assert_eq!(code(store.look(&at).await), Some(ImsCode::IMG_0057));
    drop(writer);
    assert_eq!(code(store.look(&at).await), Some(ImsCode::IMG_0057));
    let written = write(store, &at, b"whole").await?;
    assert_eq!(store.look(&at).await?, written);
    Ok(())
}

/// Where there is an object there is no room for another.
///
/// # Errors
/// What the store says.
pub async fn an_object_is_never_replaced(store: &dyn Objects, bucket: &str) -> Result<()> {
    let at = at(bucket, "taken")?;
    let first = write(store, &at, b"first").await?;
    let second = write(store, &at, b"second").await;
    assert_eq!(code(second), Some(ImsCode::IMG_0070));
    assert_eq!(store.look(&at).await?, first);
    assert_eq!(read(store, &at, &first, 0..5).await?, b"first");
    // One without bytes can't be read, and is there. The other is more than one part of what stores take in parts.
    let empty = self::at(bucket, "empty")?;
    let _ = write(store, &empty, b"").await;
    let second = write(store, &empty, &content(9 << 20)).await;
    assert_eq!(code(second), Some(ImsCode::IMG_0070));
    Ok(())
}

/// A bucket that is not there has another code than an object that is not.
///
/// # Errors
/// What the store says.
pub async fn what_is_not_there_is_told_apart(store: &dyn Objects, bucket: &str) -> Result<()> {
    let nowhere = at("no-such-bucket-here", "one")?;
    assert_eq!(code(store.look(&nowhere).await), Some(ImsCode::IMG_0069));
    let made = store.create(&nowhere, ByteSize::ZERO, None).await;
    assert_eq!(code(made), Some(ImsCode::IMG_0069));
    for key in ["nothing", "no/thing"] {
        let nothing = at(bucket, key)?;
        assert_eq!(code(store.look(&nothing).await), Some(ImsCode::IMG_0057));
    }
    let facts = ObjectFacts {
        size: ByteSize::new(1),
        version: "x".to_owned(),
    };
    let gone = read(store, &at(bucket, "nothing")?, &facts, 0..1).await;
    assert_eq!(code(gone), Some(ImsCode::IMG_0057));
    Ok(())
}

/// What was looked at is read, or nothing is.
///
/// # Errors
/// What the store says.
pub async fn an_object_that_is_another_is_not_read(
    store: &dyn Objects,
    bucket: &str,
) -> Result<()> {
    let (one, other) = (at(bucket, "this")?, at(bucket, "that")?);
    let of_one = write(store, &one, b"this").await?;
    write(store, &other, b"that").await?;
    let mixed = read(store, &other, &of_one, 0..4).await;
    assert_eq!(code(mixed), Some(ImsCode::IMG_0057));
    Ok(())
}
