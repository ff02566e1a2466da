//! Blobs in a store that speaks S3.
//!
//! ```text
//! PREFIX/blobs/3f1c...-...e2                               the pointer: which attempt is the blob
//!        staged/3f1c...-...e2/9a0b...                      a marker: this attempt is on, or has left something
//!        data/3f1c...-...e2/9a0b.../00000007               a segment
//!                                  /notes.00000002         notes of finished segments
//!                                  /adopted                another attempt refers to segments of this one
//!                                  /manifest.5d6e...       where the segments are, and the manifest
//!        labels/catalog                                    a label
//! ```
//! Each attempt has a random name, and all that it writes lies below it. A segment, notes or a manifest are written under
//! their key once and never changed. Of the other keys the store is asked for no more than that a key is read as it was last
//! written. `docs/adr/0015-blobs-in-an-object-store.md` has the reasons and the races that were thought through.
//!
//! # Consistency
//! A blob is there when its pointer is. The pointer leads to a manifest whose segments are all there. Should a request of
//! an attempt that was overtaken come so late that it leads to one that is gone, the manifests of the blob are looked
//! through for one that is whole, and there is one.
//!
//! # Crash consistency
//! See [`super`]. What is in no listing of markers is found by its data: [`BlobStore::list_staged`] looks for both.
//! Uploads in parts that nobody ends are ended by [`BlobStore::discard`], where the store can list them.

mod chunks;
mod names;
mod records;
mod staged;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::ports::Entropy;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use calotype_s3::{Bucket, Entry};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;

use self::chunks::Chunks;
use self::names::{AttemptId, Names, Part};
use self::records::{CONTENTS_LIMIT, NOTES_LIMIT, PlacedNote, Places, SMALL};
use self::staged::StagedObjects;
use self::stored::StoredObjects;
use super::{BlobStore, Cache, LABEL_LIMIT, Staged, Stored, Use, check_label};

/// Objects of one kind that are read at once.
const AT_ONCE: usize = 16;

/// Parts of all attempts that are on their way at once: 768 MiB at the most.
const PARTS: usize = 96;

/// How soon a store that is ready answers.
const READY: Duration = Duration::from_secs(5);

/// A store of blobs in a bucket. Several processes may work on it. Clones are the same store.
#[derive(Clone)]
pub struct S3Store {
    shared: Arc<Shared>,
    bucket: Bucket,
}

struct Shared {
    names: Names,
    entropy: Arc<dyn Entropy>,
    /// The attempts of this process, with what is there as long as one of them is.
    alive: Mutex<BTreeMap<AttemptId, Weak<()>>>,
    chunks: Chunks,
    /// Parts that all attempts together have on their way.
    room: Arc<Semaphore>,
}

/// A blob, as its pointer leads to it.
struct Found {
    attempt: AttemptId,
    /// The key of the manifest.
    key: String,
    places: Places,
    manifest: Bytes,
}

/// An attempt that can be gone on with.
struct Left {
    attempt: AttemptId,
    notes: BTreeMap<u32, PlacedNote>,
}

impl S3Store {
    /// The store below `prefix` in a bucket; what is read of it is kept in `cache`. Nothing is asked of it yet.
    pub fn new(
        bucket: Bucket,
        prefix: &str,
        cache: Option<Cache>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                names: Names::below(prefix),
                entropy,
                alive: Mutex::default(),
                chunks: Chunks::new(cache),
                room: Arc::new(Semaphore::new(PARTS)),
            }),
            bucket,
        }
    }

    /// The same store for who is in the middle of something.
    fn patient(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            bucket: self.bucket.patient(),
        }
    }

    const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn names(&self) -> &Names {
        &self.shared.names
    }

    fn chunks(&self) -> &Chunks {
        &self.shared.chunks
    }

    fn alive(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Weak<()>>> {
        let mut alive = self
            .shared
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        alive.retain(|_, attempt| attempt.strong_count() > 0);
        alive
    }

    /// Begins an attempt. Its marker is there before anything else of it.
    async fn begin(&self, blob: BlobId, slot: u64) -> Result<StagedObjects> {
        let mut attempt = AttemptId([0; 16]);
        self.shared.entropy.fill(&mut attempt.0);
        let life = Arc::new(());
        self.alive().insert(attempt, Arc::downgrade(&life));
        let marker = self.names().marker(blob, attempt);
        let put = self.bucket().put(&marker, vec![records::marker(slot)]);
        put.await?;
        Ok(StagedObjects::new(
            self.patient(),
            blob,
            attempt,
            slot,
            life,
        ))
    }

    /// Whether an attempt may still be committed.
    async fn is_on(&self, blob: BlobId, attempt: AttemptId) -> Result<bool> {
        let marker = self.names().marker(blob, attempt);
        let marker = self.bucket().get(&marker, SMALL).await?;
        Ok(marker.is_some_and(|marker| records::read_marker(&marker).is_some()))
    }

    /// What stands in the blob's pointer. Of one that can't be read, an attempt that there is not.
    async fn pointer(&self, blob: BlobId) -> Result<Option<(AttemptId, String)>> {
        let pointer = self.names().pointer(blob);
        let read = |bytes: &Bytes| records::read_pointer(bytes);
        match self.bucket().get_as(&pointer, SMALL, read).await {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                Ok(Some((AttemptId([0; 16]), String::new())))
            }
            other => other,
        }
    }

    /// The committed blob; nothing where there is none.
    ///
    /// # Errors
    /// Damaged where there is no whole manifest; Unavailable.
    async fn find(&self, blob: BlobId) -> Result<Option<Found>> {
        let Some((attempt, name)) = self.pointer(blob).await? else {
            return Ok(None);
        };
        let key = format!("{}{name}", self.names().attempt(blob, attempt));
        if let Some(found) = self.manifest(attempt, key).await? {
            return Ok(Some(found));
        }
        // An attempt that was overtaken wrote it too late, or the manifest is lost.
        match self.find_whole(blob).await? {
            Some(found) => Ok(Some(found)),
            None => Err(Error::damaged("the blob's manifest is gone")),
        }
    }

    /// A manifest by its key; nothing where it is not there, or not whole.
    async fn manifest(&self, attempt: AttemptId, key: String) -> Result<Option<Found>> {
        let read = self
            .bucket()
            .get_as(&key, CONTENTS_LIMIT, records::read_contents);
        let read = match read.await {
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            other => other?,
        };
        Ok(read.map(|(places, manifest)| Found {
            attempt,
            key,
            places,
            manifest,
        }))
    }

    /// Of all manifests of a blob, the first whose segments are all there.
    async fn find_whole(&self, blob: BlobId) -> Result<Option<Found>> {
        let objects = self.objects(blob).await?;
        let sizes: BTreeMap<&str, u64> = objects
            .iter()
            .map(|entry| (entry.key.as_str(), entry.size))
            .collect();
        for entry in &objects {
            let Some((attempt, Part::Manifest)) = self.names().of_data(blob, &entry.key) else {
                continue;
            };
            let Some(found) = self.manifest(attempt, entry.key.clone()).await? else {
                continue;
            };
            let whole = found.places.iter().all(|(index, place)| {
                let key = self.names().segment(blob, place.attempt, *index);
                sizes.get(key.as_str()) == Some(&u64::from(place.length))
            });
            if whole {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All objects of a blob's attempts.
    async fn objects(&self, blob: BlobId) -> Result<Vec<Entry>> {
        let mut objects = Vec::new();
        let prefix = self.names().data_of(blob);
        let list = self.bucket().list(&prefix, |entry| objects.push(entry));
        list.await?;
        Ok(objects)
    }

    /// The attempts at a blob, of all processes.
    async fn attempts(&self, blob: BlobId) -> Result<Vec<AttemptId>> {
        let mut attempts = Vec::new();
        let prefix = self.names().markers_of(blob);
        let list = self.bucket().list(&prefix, |entry| {
            attempts.extend(
                self.names()
                    .of_marker(&entry.key)
                    .map(|(_, attempt)| attempt),
            );
        });
        list.await?;
        Ok(attempts)
    }

    /// Of what dead attempts left, the one with most notes.
    async fn left(&self, blob: BlobId, slot: u64) -> Result<Option<Left>> {
        let mut attempts = self.attempts(blob).await?;
        {
            let alive = self.alive();
            attempts.retain(|attempt| !alive.contains_key(attempt));
        }
        if attempts.is_empty() {
            return Ok(None);
        }
        let objects = self.objects(blob).await?;
        let sizes: BTreeMap<&str, u64> = objects
            .iter()
            .map(|entry| (entry.key.as_str(), entry.size))
            .collect();
        let mut best: Option<Left> = None;
        for attempt in attempts {
            let keys = objects.iter().filter_map(|entry| {
                let of = self.names().of_data(blob, &entry.key);
                (of == Some((attempt, Part::Notes))).then(|| entry.key.clone())
            });
            let read = stream::iter(keys.collect::<Vec<_>>()).map(|key| async move {
                let bytes = self.bucket().get(&key, NOTES_LIMIT).await?;
                let read = bytes.and_then(|bytes| records::read_notes(&bytes, slot));
                Ok::<_, Error>(read.unwrap_or_default())
            });
            let read: Vec<Vec<PlacedNote>> = read.buffered(AT_ONCE).try_collect().await?;
            let mut notes: BTreeMap<_, _> = read
                .into_iter()
                .flatten()
                .map(|placed| (placed.note.index, placed))
                .collect();
            notes.retain(|index, placed| {
                let key = self.names().segment(blob, placed.place.attempt, *index);
                sizes.get(key.as_str()) == Some(&u64::from(placed.place.length))
            });
            let most = best.as_ref().map_or(0, |best| best.notes.len());
            if notes.len() > most {
                best = Some(Left { attempt, notes });
            }
        }
        Ok(best)
    }

    /// Removes what the blob does not refer to, and ends the attempts that are on.
    async fn sweep(&self, blob: BlobId) -> Result<()> {
        // The data first: whoever has some has had a marker before. An attempt that begins after this is left alone.
        let attempt_of = |entry: &Entry| Some(self.names().of_data(blob, &entry.key)?.0);
        let mut attempts: BTreeSet<AttemptId> = self
            .objects(blob)
            .await?
            .iter()
            .filter_map(attempt_of)
            .collect();
        attempts.extend(self.attempts(blob).await?);
        let markers = attempts.iter();
        let markers = markers.map(|attempt| self.names().marker(blob, *attempt));
        let markers: Vec<String> = markers.collect();
        // Before the pointer is looked at: an attempt looks at its marker after it wrote the pointer. So one that is not
        // spared here knows that it was discarded.
        for marker in &markers {
            let over = self.bucket().put(marker, vec![records::marker_over()]);
            over.await?;
        }
        let found = match self.find(blob).await {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                // Nothing of it can be read, but nor is it this call's to say that it may go.
                tracing::warn!(blob.id = %blob, error.chain = %error.chain(), "a damaged blob is left as it is");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(found) = &found {
            self.point(blob, found).await?;
        }
        let kept = found.map(|found| self.keys_of(blob, &found));
        let kept = kept.unwrap_or_default();
        let mut doomed = self.objects(blob).await?;
        doomed.retain(|entry| {
            let ended = attempt_of(entry).is_some_and(|attempt| attempts.contains(&attempt));
            ended && !kept.contains(&entry.key)
        });
        self.remove(blob, doomed.into_iter().map(|entry| entry.key).collect())
            .await?;
        for attempt in &attempts {
            let prefix = self.names().attempt(blob, *attempt);
            self.bucket().abort_all(&prefix).await?;
        }
        self.bucket().delete_all(markers).await
    }

    /// Removes objects of attempts: manifests first, so that none is left without its segments.
    async fn remove(&self, blob: BlobId, keys: Vec<String>) -> Result<()> {
        let (manifests, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| {
            let of = self.names().of_data(blob, key);
            of.is_some_and(|(_, part)| part == Part::Manifest)
        });
        self.bucket().delete_all(manifests).await?;
        self.bucket().delete_all(others).await
    }

    /// Makes the pointer lead to what was found, where it leads elsewhere.
    async fn point(&self, blob: BlobId, found: &Found) -> Result<()> {
        let (attempt, name) = (found.attempt, file_name(&found.key));
        if self.pointer(blob).await? == Some((attempt, name.to_owned())) {
            return Ok(());
        }
        let pointer = records::pointer(attempt, name);
        let key = self.names().pointer(blob);
        self.bucket().put(&key, vec![pointer]).await
    }

    /// What a blob refers to, and what says so to the attempts that wrote it.
    fn keys_of(&self, blob: BlobId, found: &Found) -> BTreeSet<String> {
        let places = found.places.iter();
        let segments =
            places.map(|(index, place)| self.names().segment(blob, place.attempt, *index));
        let others = found.places.values().map(|place| place.attempt);
        let others = others.filter(|attempt| *attempt != found.attempt);
        let adopted = others.map(|attempt| self.names().adopted(blob, attempt));
        segments.chain(adopted).chain([found.key.clone()]).collect()
    }
}

fn file_name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

#[async_trait::async_trait]
impl BlobStore for S3Store {
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        Ok(Arc::new(self.begin(blob, slot).await?))
    }

    async fn resume(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let left = self.left(blob, slot).await?;
        let mut staged = self.begin(blob, slot).await?;
        if let Some(left) = left {
            staged.adopt(left).await?;
        }
        Ok(Arc::new(staged))
    }

    async fn open(&self, blob: BlobId, purpose: Use) -> Result<Option<Arc<dyn Stored>>> {
        let found = self.find(blob).await?;
        Ok(found.map(|found| {
            Arc::new(StoredObjects::new(self.clone(), blob, found, purpose)) as Arc<dyn Stored>
        }))
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        // The pointer first: from here on the rest is staged.
        self.bucket().delete(&self.names().pointer(blob)).await?;
        self.sweep(blob).await
    }

    async fn discard(&self, blob: BlobId) -> Result<()> {
        self.sweep(blob).await
    }

    async fn list(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let mut blobs = Vec::new();
        let prefix = self.names().pointers();
        let list = self.bucket().list(&prefix, |entry| {
            let blob = self.names().of_pointer(&entry.key);
            blobs.extend(blob.map(|blob| (blob, entry.written)));
        });
        list.await?;
        blobs.sort_unstable();
        Ok(blobs)
    }

    async fn list_staged(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        // In this order: what has data has a marker or a pointer, before it and after it.
        let mut unknown = BTreeSet::new();
        let prefix = self.names().data();
        let list = self.bucket().list_folders(&prefix, |name| {
            unknown.extend(name.parse::<BlobId>().ok());
        });
        list.await?;
        let mut staged = BTreeMap::new();
        let prefix = self.names().markers();
        let list = self.bucket().list(&prefix, |entry| {
            if let Some((blob, _)) = self.names().of_marker(&entry.key) {
                let last = staged.entry(blob).or_insert(entry.written);
                *last = (*last).max(entry.written);
            }
        });
        list.await?;
        for (blob, _) in self.list().await? {
            unknown.remove(&blob);
        }
        for blob in unknown {
            if staged.contains_key(&blob) {
                continue;
            }
            let objects = self.objects(blob).await?;
            let last = objects.iter().map(|entry| entry.written).max();
            staged.extend(last.map(|last| (blob, last)));
        }
        Ok(staged.into_iter().collect())
    }

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        // The store does not say. Whether it answers is what is really asked, by somebody who does not wait for long.
        let label = self.names().label("catalog");
        let asked = tokio::time::timeout(READY, self.bucket().size(&label)).await;
        asked.map_err(Error::unavailable)??;
        Ok(None)
    }

    fn memory(&self) -> u64 {
        staged::MEMORY + stored::MEMORY
    }

    async fn label(&self, name: &str) -> Result<Option<Bytes>> {
        check_label(name, 0)?;
        let key = self.names().label(name);
        self.bucket().get(&key, LABEL_LIMIT as u64).await
    }

    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()> {
        check_label(name, bytes.len())?;
        self.bucket()
            .put(&self.names().label(name), vec![bytes])
            .await
    }
}
