//! What every [`BlobStore`] must do, as functions that a store's tests call. Each takes an empty store
//! and panics where a promise is broken. They compare through the port alone.

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::{ErrorKind, Result};
use uuid::Uuid;

use crate::store::{BlobStore, Slot};

const SLOT: u64 = 4096;

fn id(number: u128) -> BlobId {
    BlobId::from(Uuid::from_u128(number))
}

const fn slot(index: u32) -> Slot {
    Slot { index, size: SLOT }
}

async fn put(store: &dyn BlobStore, blob: BlobId, text: &'static str) -> Result<()> {
    let mut staged = store.stage(blob, SLOT).await?;
    staged
        .append(0, Bytes::from_static(text.as_bytes()))
        .await?;
    staged.finish_segment(0).await?;
    staged.commit(Bytes::from_static(b"manifest")).await
}

async fn get(store: &dyn BlobStore, blob: BlobId, length: usize) -> Result<Option<Vec<u8>>> {
    match store.open(blob).await? {
        None => Ok(None),
        Some(stored) => stored.read(slot(0), 0, vec![0; length]).await.map(Some),
    }
}

/// Runs all of them, removing what each leaves.
///
/// # Errors
/// What the store says.
pub async fn all(store: &dyn BlobStore) -> Result<()> {
    what_is_committed_is_read_back(store).await?;
    nothing_is_visible_before_the_commit(store).await?;
    a_committed_blob_is_never_replaced(store).await?;
    a_discarded_attempt_cannot_be_committed(store).await?;
    of_two_attempts_one_is_committed(store).await?;
    deleting_and_discarding_twice_is_no_error(store).await?;
    missing_bytes_are_damage(store).await?;
    bytes_out_of_place_are_refused(store).await?;
    assert!(store.list().await?.is_empty());
    assert!(store.list_staged().await?.is_empty());
    Ok(())
}

/// A blob has the bytes and the manifest that it was given, at any offset, with segments left out.
///
/// # Errors
/// What the store says.
pub async fn what_is_committed_is_read_back(store: &dyn BlobStore) -> Result<()> {
    let blob = id(1);
    let mut staged = store.stage(blob, SLOT).await?;
    staged.append(0, Bytes::from_static(b"one, ")).await?;
    staged.append(0, Bytes::from_static(b"two")).await?;
    staged.finish_segment(0).await?;
    staged.append(7, Bytes::from(vec![9; 4096])).await?;
    staged.finish_segment(7).await?;
    staged.commit(Bytes::from_static(b"contents")).await?;

    let stored = store.open(blob).await?;
    assert!(stored.is_some(), "a committed blob can be opened");
    if let Some(stored) = stored {
        assert_eq!(stored.manifest().as_ref(), b"contents");
        assert_eq!(stored.read(slot(0), 0, vec![0; 8]).await?, b"one, two");
        assert_eq!(stored.read(slot(0), 5, vec![0; 2]).await?, b"tw");
        assert_eq!(stored.read(slot(7), 0, vec![0; 4096]).await?, vec![9; 4096]);
    }
    let listed = store.list().await?;
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [blob]);
    store.delete(blob).await
}

/// Until its commit a blob is staged, and only that.
///
/// # Errors
/// What the store says.
pub async fn nothing_is_visible_before_the_commit(store: &dyn BlobStore) -> Result<()> {
    let blob = id(2);
    let mut staged = store.stage(blob, SLOT).await?;
    staged.append(0, Bytes::from_static(b"bytes")).await?;
    staged.finish_segment(0).await?;
    assert!(store.open(blob).await?.is_none());
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
    let mut zombie = store.stage(blob, SLOT).await?;
    zombie.append(0, Bytes::from_static(b"zombie")).await?;
    store.discard(blob).await?;
    let mut heir = store.stage(blob, SLOT).await?;
    heir.append(0, Bytes::from_static(b"heir")).await?;
    assert!(zombie.commit(Bytes::from_static(b"m")).await.is_err());
    assert!(store.open(blob).await?.is_none());
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
    let mut one = store.stage(blob, SLOT).await?;
    let mut other = store.stage(blob, SLOT).await?;
    one.append(0, Bytes::from_static(b"aaaa")).await?;
    other.append(0, Bytes::from_static(b"bbbb")).await?;
    one.append(0, Bytes::from_static(b"aaaa")).await?;
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
        store.open(blob).await?.is_some(),
        "a discard spares the committed"
    );
    for _ in 0..2 {
        store.delete(blob).await?;
        store.discard(blob).await?;
    }
    assert!(store.open(blob).await?.is_none());
    Ok(())
}

/// Reading beyond what was written is Damaged, not zeros and not fewer bytes.
///
/// # Errors
/// What the store says.
pub async fn missing_bytes_are_damage(store: &dyn BlobStore) -> Result<()> {
    let blob = id(7);
    put(store, blob, "bytes").await?;
    if let Some(stored) = store.open(blob).await? {
        for (place, offset, length) in [(slot(0), 0, 6), (slot(0), 5, 1), (slot(3), 0, 1)] {
            let read = stored.read(place, offset, vec![0; length]).await;
            assert_eq!(read.map_err(|e| e.kind()), Err(ErrorKind::Damaged));
        }
    }
    store.delete(blob).await
}

/// Bytes beyond the slot and segments that go backwards are refused, and end the attempt.
///
/// # Errors
/// What the store says.
pub async fn bytes_out_of_place_are_refused(store: &dyn BlobStore) -> Result<()> {
    let blob = id(8);
    for (first, second) in [((0, 4096), (0, 1)), ((1, 1), (0, 1)), ((0, 0), (0, 4097))] {
        let mut staged = store.stage(blob, SLOT).await?;
        staged
            .append(first.0, Bytes::from(vec![1; first.1]))
            .await?;
        let refused = staged
            .append(second.0, Bytes::from(vec![1; second.1]))
            .await;
        assert_eq!(
            refused.map_err(|e| e.kind()),
            Err(ErrorKind::InvalidRequest)
        );
        assert!(staged.commit(Bytes::from_static(b"m")).await.is_err());
        staged.abandon().await?;
    }
    assert!(store.open(blob).await?.is_none());
    Ok(())
}
