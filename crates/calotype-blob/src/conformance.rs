//! What every [`BlobStore`] must do, as functions that a store's tests call. Each takes an empty store
//! and panics where a promise is broken. They compare through the port alone.

use std::sync::Arc;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::{ErrorKind, Result};
use uuid::Uuid;

use crate::store::{BlobStore, Buffer, LABEL_LIMIT, Note, Slot, Staged, Stored, Use};

const SLOT: u64 = 4096;

fn id(number: u128) -> BlobId {
    BlobId::from(Uuid::from_u128(number))
}

const fn slot(index: u32) -> Slot {
    Slot { index, size: SLOT }
}

fn note(index: u32, bytes: &'static [u8]) -> Note {
    Note {
        index,
        bytes: Bytes::from_static(bytes),
    }
}

/// Writes a whole segment.
async fn segment(staged: &Arc<dyn Staged>, index: u32, bytes: &[u8]) -> Result<()> {
    let mut writer = staged.segment(index)?;
    writer.append(Bytes::copy_from_slice(bytes)).await?;
    writer.finish().await
}

async fn put(store: &dyn BlobStore, blob: BlobId, text: &'static str) -> Result<()> {
    let staged = store.stage(blob, SLOT).await?;
    segment(&staged, 0, text.as_bytes()).await?;
    staged.commit(Bytes::from_static(b"manifest")).await
}

async fn read(
    stored: &Arc<dyn Stored>,
    place: Slot,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>> {
    let buffer = stored.read(place, offset, length, Buffer::default());
    Ok(buffer.await?.bytes().to_vec())
}

async fn get(store: &dyn BlobStore, blob: BlobId, length: usize) -> Result<Option<Vec<u8>>> {
    match store.open(blob, Use::Shared).await? {
        None => Ok(None),
        Some(stored) => read(&stored, slot(0), 0, length).await.map(Some),
    }
}

async fn is_there(store: &dyn BlobStore, blob: BlobId) -> Result<bool> {
    Ok(store.open(blob, Use::Shared).await?.is_some())
}

/// Runs all of them, removing what each leaves.
///
/// # Errors
/// What the store says.
pub async fn all(store: &dyn BlobStore) -> Result<()> {
    what_is_committed_is_read_back(store).await?;
    segments_may_be_written_at_once_and_in_any_order(store).await?;
    nothing_is_visible_before_the_commit(store).await?;
    a_committed_blob_is_never_replaced(store).await?;
    a_discarded_attempt_cannot_be_committed(store).await?;
    of_two_attempts_one_is_committed(store).await?;
    deleting_and_discarding_twice_is_no_error(store).await?;
    missing_bytes_are_damage(store).await?;
    bytes_that_do_not_fit_end_the_attempt(store).await?;
    a_dead_attempt_is_gone_on_with_from_its_notes(store).await?;
    a_living_attempt_is_left_alone(store).await?;
    a_label_is_what_was_last_written(store).await?;
    assert!(store.list().await?.is_empty());
    assert!(store.list_staged().await?.is_empty());
    Ok(())
}

/// A blob has the bytes and the manifest that it was given, at any offset, with segments left out, whatever
/// the reads are for.
///
/// # Errors
/// What the store says.
pub async fn what_is_committed_is_read_back(store: &dyn BlobStore) -> Result<()> {
    let blob = id(1);
    let staged = store.stage(blob, SLOT).await?;
    let mut writer = staged.segment(0)?;
    writer.append(Bytes::from_static(b"one, ")).await?;
    writer.append(Bytes::from_static(b"two")).await?;
    writer.finish().await?;
    segment(&staged, 7, &[9; 4096]).await?;
    staged.commit(Bytes::from_static(b"contents")).await?;

    for purpose in [Use::Shared, Use::OnePass] {
        let stored = store.open(blob, purpose).await?;
        assert!(stored.is_some(), "a committed blob can be opened");
        let Some(stored) = stored else { continue };
        assert_eq!(stored.manifest().as_ref(), b"contents");
        assert_eq!(read(&stored, slot(0), 0, 8).await?, b"one, two");
        assert_eq!(read(&stored, slot(0), 5, 2).await?, b"tw");
        assert_eq!(read(&stored, slot(7), 0, 4096).await?, vec![9; 4096]);
        assert_eq!(read(&stored, slot(7), 4095, 1).await?, [9]);
        let again = stored.read(slot(0), 0, 3, Buffer::default()).await?;
        let again = stored.read(slot(7), 1, 4000, again).await?;
        assert_eq!(again.bytes(), vec![9; 4000], "a buffer is used again");
    }
    let listed = store.list().await?;
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [blob]);
    store.delete(blob).await
}

/// Writers of different segments do not get in each other's way.
///
/// # Errors
/// What the store says.
pub async fn segments_may_be_written_at_once_and_in_any_order(store: &dyn BlobStore) -> Result<()> {
    let blob = id(9);
    let staged = store.stage(blob, SLOT).await?;
    let (mut late, mut early) = (staged.segment(5)?, staged.segment(2)?);
    for _ in 0..16 {
        late.append(Bytes::from(vec![5; 256])).await?;
        early.append(Bytes::from(vec![2; 255])).await?;
    }
    late.finish().await?;
    early.finish().await?;
    staged.commit(Bytes::from_static(b"m")).await?;
    if let Some(stored) = store.open(blob, Use::Shared).await? {
        assert_eq!(read(&stored, slot(5), 0, 4096).await?, vec![5; 4096]);
        assert_eq!(read(&stored, slot(2), 0, 4080).await?, vec![2; 4080]);
    }
    store.delete(blob).await
}

/// Until its commit a blob is staged, and only that.
///
/// # Errors
/// What the store says.
pub async fn nothing_is_visible_before_the_commit(store: &dyn BlobStore) -> Result<()> {
    let blob = id(2);
    let staged = store.stage(blob, SLOT).await?;
    segment(&staged, 0, b"bytes").await?;
    staged.checkpoint(vec![note(0, b"n")]).await?;
    assert!(!is_there(store, blob).await?);
    assert!(store.list().await?.is_empty());
    let listed = store.list_staged().await?;
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [blob]);
    staged.abandon().await?;
    assert!(store.list_staged().await?.is_empty());

    drop(store.stage(blob, SLOT).await?);
    assert_eq!(
        store.list_staged().await?.len(),
        1,
        "a dropped attempt is named"
    );
    store.discard(blob).await?;
    assert!(store.list_staged().await?.is_empty());
    Ok(())
}

/// A second commit of one id is refused, and the first one's bytes stay.
///
/// # Errors
/// What the store says.
pub async fn a_committed_blob_is_never_replaced(store: &dyn BlobStore) -> Result<()> {
    let blob = id(3);
    put(store, blob, "first").await?;
    let second = put(store, blob, "other").await;
    assert_eq!(second.map_err(|e| e.kind()), Err(ErrorKind::Conflict));
    store.discard(blob).await?;
    assert_eq!(get(store, blob, 5).await?.as_deref(), Some(&b"first"[..]));
    store.delete(blob).await
}

/// An attempt that was given up for dead and still runs has no effect.
///
/// # Errors
/// What the store says.
pub async fn a_discarded_attempt_cannot_be_committed(store: &dyn BlobStore) -> Result<()> {
    let blob = id(4);
    let zombie = store.stage(blob, SLOT).await?;
    segment(&zombie, 0, b"zombie").await?;
    store.discard(blob).await?;
    let heir = store.stage(blob, SLOT).await?;
    segment(&heir, 0, b"heir").await?;
    assert!(zombie.commit(Bytes::from_static(b"m")).await.is_err());
    assert!(!is_there(store, blob).await?);
    heir.commit(Bytes::from_static(b"m")).await?;
    assert_eq!(get(store, blob, 4).await?.as_deref(), Some(&b"heir"[..]));
    store.delete(blob).await
}

/// Of two attempts that are on at once, the first commit wins, whole.
///
/// # Errors
/// What the store says.
pub async fn of_two_attempts_one_is_committed(store: &dyn BlobStore) -> Result<()> {
    let blob = id(5);
    let one = store.stage(blob, SLOT).await?;
    let other = store.stage(blob, SLOT).await?;
    segment(&one, 0, b"aaaa").await?;
    segment(&other, 0, b"bbbb").await?;
    segment(&one, 1, b"aaaa").await?;
    other.commit(Bytes::from_static(b"b")).await?;
    let late = one.commit(Bytes::from_static(b"a")).await;
    assert_eq!(late.map_err(|e| e.kind()), Err(ErrorKind::Conflict));
    assert_eq!(get(store, blob, 4).await?.as_deref(), Some(&b"bbbb"[..]));
    store.discard(blob).await?;
    store.delete(blob).await
}

/// Removing what is not there succeeds, and what is removed is gone.
///
/// # Errors
/// What the store says.
pub async fn deleting_and_discarding_twice_is_no_error(store: &dyn BlobStore) -> Result<()> {
    let blob = id(6);
    put(store, blob, "bytes").await?;
    store.discard(blob).await?;
    assert!(
        is_there(store, blob).await?,
        "a discard spares the committed"
    );
    for _ in 0..2 {
        store.delete(blob).await?;
        store.discard(blob).await?;
    }
    assert!(!is_there(store, blob).await?);
    Ok(())
}

/// Reading beyond what was written is Damaged, not zeros and not fewer bytes.
///
/// # Errors
/// What the store says.
pub async fn missing_bytes_are_damage(store: &dyn BlobStore) -> Result<()> {
    let blob = id(7);
    put(store, blob, "bytes").await?;
    for purpose in [Use::Shared, Use::OnePass] {
        let Some(stored) = store.open(blob, purpose).await? else {
            continue;
        };
        for (place, offset, length) in [(slot(0), 0, 6), (slot(0), 5, 1), (slot(3), 0, 1)] {
            let read = read(&stored, place, offset, length).await;
            assert_eq!(read.map_err(|e| e.kind()), Err(ErrorKind::Damaged));
        }
    }
    store.delete(blob).await
}

/// Bytes beyond the slot are refused, and end the attempt.
///
/// # Errors
/// What the store says.
pub async fn bytes_that_do_not_fit_end_the_attempt(store: &dyn BlobStore) -> Result<()> {
    let blob = id(8);
    for (first, second) in [(4096, 1), (0, 4097)] {
        let staged = store.stage(blob, SLOT).await?;
        let mut writer = staged.segment(0)?;
        writer.append(Bytes::from(vec![1; first])).await?;
        let refused = writer.append(Bytes::from(vec![1; second])).await;
        assert_eq!(
            refused.map_err(|e| e.kind()),
            Err(ErrorKind::InvalidRequest)
        );
        assert!(staged.segment(1).is_err());
        assert!(staged.commit(Bytes::from_static(b"m")).await.is_err());
        staged.abandon().await?;
    }
    assert!(!is_there(store, blob).await?);
    Ok(())
}

/// What was noted is there for the next attempt, however many there are, and can be committed by it; what was
/// not noted is written again.
///
/// # Errors
/// What the store says.
pub async fn a_dead_attempt_is_gone_on_with_from_its_notes(store: &dyn BlobStore) -> Result<()> {
    let blob = id(10);
    let first = store.stage(blob, SLOT).await?;
    assert!(first.noted().is_empty());
    segment(&first, 3, b"third").await?;
    segment(&first, 1, b"first").await?;
    let (three, one) = (note(3, b"three"), note(1, b"one"));
    first.checkpoint(vec![three.clone()]).await?;
    first.checkpoint(vec![one.clone()]).await?;
    segment(&first, 4, b"lost in the crash").await?;
    drop(first);

    let second = store.resume(blob, SLOT).await?;
    assert_eq!(second.noted(), [one.clone(), three.clone()]);
    segment(&second, 4, b"again").await?;
    let four = note(4, b"");
    second.checkpoint(vec![four.clone()]).await?;
    drop(second);

    let third = store.resume(blob, SLOT).await?;
    assert_eq!(third.noted(), [one, three, four]);
    segment(&third, 0, b"last").await?;
    third.commit(Bytes::from_static(b"m")).await?;
    if let Some(stored) = store.open(blob, Use::Shared).await? {
        for (index, bytes) in [(0, "last"), (1, "first"), (3, "third"), (4, "again")] {
            let read = read(&stored, slot(index), 0, bytes.len()).await?;
            assert_eq!(read, bytes.as_bytes());
        }
    }
    assert!(store.list_staged().await?.is_empty());
    store.delete(blob).await
}

/// An attempt whose owner may still be there is neither taken over nor removed; and slots of another size are
/// not gone on with.
///
/// # Errors
/// What the store says.
pub async fn a_living_attempt_is_left_alone(store: &dyn BlobStore) -> Result<()> {
    let blob = id(11);
    let alive = store.stage(blob, SLOT).await?;
    segment(&alive, 0, b"alive").await?;
    alive.checkpoint(vec![note(0, b"n")]).await?;
    let other = store.resume(blob, SLOT).await?;
    assert!(other.noted().is_empty());
    segment(&other, 0, b"other").await?;
    alive.commit(Bytes::from_static(b"m")).await?;
    assert!(other.commit(Bytes::from_static(b"m")).await.is_err());
    assert_eq!(get(store, blob, 5).await?.as_deref(), Some(&b"alive"[..]));
    store.delete(blob).await?;
    store.discard(blob).await?;

    let dead = store.stage(blob, SLOT).await?;
    segment(&dead, 0, b"dead").await?;
    dead.checkpoint(vec![note(0, b"n")]).await?;
    drop(dead);
    let other = store.resume(blob, 2 * SLOT).await?;
    assert!(other.noted().is_empty());
    other.abandon().await?;
    store.discard(blob).await
}

/// A label is nothing until it is written, and then what was written last; its name can't be a path; and it is no
/// blob.
///
/// # Errors
/// What the store says.
pub async fn a_label_is_what_was_last_written(store: &dyn BlobStore) -> Result<()> {
    assert_eq!(store.label("first").await?, None);
    for text in [&b"one"[..], b"a longer one", b""] {
        let bytes = Bytes::from_static(text);
        store.set_label("first", bytes.clone()).await?;
        assert_eq!(store.label("first").await?, Some(bytes));
    }
    assert_eq!(store.label("second").await?, None);
    for name in ["", "..", "a/b", "A", "a.b", "\0", &"a".repeat(65)] {
        let read = store.label(name).await.map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::InvalidRequest), "{name:?}");
        let written = store.set_label(name, Bytes::new()).await;
        let written = written.map_err(|error| error.kind());
        assert_eq!(written, Err(ErrorKind::InvalidRequest), "{name:?}");
    }
    let large = Bytes::from(vec![0; LABEL_LIMIT + 1]);
    assert!(store.set_label("first", large).await.is_err());
    assert_eq!(store.label("first").await?, Some(Bytes::new()));
    assert!(store.list().await?.is_empty());
    Ok(())
}
