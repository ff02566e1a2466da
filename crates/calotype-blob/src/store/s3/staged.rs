//! An attempt to write a blob into an object store.
//!
//! ```text
//! append ─> parts of 8 MiB ─> at most IN_FLIGHT requests ─> put together when the segment is finished
//! ```
//! A segment of one part or less is one object written at once; a larger one is written in parts, which go out while the
//! segment comes. `finish` leaves the last requests to tasks, and a checkpoint and the commit wait for them: the store is busy
//! while the next segment is sealed.
//!
//! # Memory
//! A writer gathers one part; what the attempt has on its way is [`IN_FLIGHT`] parts, whatever the number of writers. The
//! bytes are the caller's own, and not copied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::{Error, ErrorKind, Result};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::names::AttemptId;
use super::records::{self, Place, PlacedNote, Places, SMALL};
use super::{Left, S3Store, file_name};
use crate::store::{FirstFailure, Note, SegmentWriter, Staged, failed_before, misplaced};

/// Bytes of a part. S3 wants 5 MiB at least.
const PART: usize = 8 << 20;

/// Parts of an attempt that are on their way at once.
const IN_FLIGHT: usize = 6;

/// The memory that a segment takes while it is written: a part that is gathered, and its share of those on their way.
pub(super) const MEMORY: u64 = 2 * PART as u64;

/// Objects with notes that are kept beside each other before they are written as one, as long as the one is not much
/// larger than they are.
const LOOSE: usize = 64;

pub(super) struct StagedObjects {
    attempt: Arc<Attempt>,
    noted: Vec<Note>,
    /// One checkpoint at a time.
    journal: tokio::sync::Mutex<Journal>,
    /// What tells this process that the attempt is alive.
    _life: Arc<()>,
}

/// The notes that are in the store.
#[derive(Default)]
struct Journal {
    /// The number of the next object.
    next: u32,
    /// The objects that hold what came since the last that holds all.
    loose: Vec<String>,
    loose_notes: usize,
    notes: BTreeMap<u32, PlacedNote>,
}

type Tasks = JoinSet<Result<()>>;

/// The room of a part that is on its way.
struct Room {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// What an attempt and its writers share.
struct Attempt {
    store: S3Store,
    blob: BlobId,
    id: AttemptId,
    slot: u64,
    failed: FirstFailure,
    room: Arc<Semaphore>,
    state: Mutex<State>,
    /// The ends of segments. They go with the attempt.
    ending: Mutex<Tasks>,
}

#[derive(Default)]
struct State {
    /// The segments that the writers are done with.
    expected: BTreeSet<u32>,
    /// Those of them that the store has, and those that were adopted.
    places: Places,
    /// Uploads in parts that were begun and not ended: keys and ids.
    uploads: BTreeMap<String, String>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn discarded() -> Error {
    Error::new(ErrorKind::Conflict, "The write was discarded.")
}

fn there_already() -> Error {
    Error::new(ErrorKind::Conflict, "The blob is there already.")
}

impl Attempt {
    fn key(&self, index: u32) -> String {
        self.store.names().segment(self.blob, self.id, index)
    }

    async fn room(self: &Arc<Self>) -> Result<Room> {
        // What has room is on its way, and gives it back whatever comes.
        let own = Arc::clone(&self.room).acquire_owned();
        let own = own.await.map_err(Error::internal)?;
        let of_all = Arc::clone(&self.store.shared.room).acquire_owned();
        Ok(Room {
            _own: own,
            _of_all: of_all.await.map_err(Error::internal)?,
        })
    }

    /// Waits until the store has the segments that were finished before.
    async fn settle(&self) -> Result<()> {
        let mut ending = std::mem::take(&mut *locked(&self.ending));
        while let Some(ended) = ending.join_next().await {
            let ended = ended.map_err(Error::internal).flatten();
            ended.inspect_err(|error| self.failed.note(error))?;
        }
        self.failed.check()
    }

    /// The segments that the blob may refer to.
    fn places(&self) -> Result<Places> {
        let state = locked(&self.state);
        // Where a checkpoint was given up, it took their ends with it.
        if !state
            .expected
            .iter()
            .all(|index| state.places.contains_key(index))
        {
            return Err(failed_before());
        }
        Ok(state.places.clone())
    }
}

impl StagedObjects {
    pub(super) fn new(
        store: S3Store,
        blob: BlobId,
        id: AttemptId,
        slot: u64,
        life: Arc<()>,
    ) -> Self {
        Self {
            attempt: Arc::new(Attempt {
                store,
                blob,
                id,
                slot,
                failed: FirstFailure::default(),
                room: Arc::new(Semaphore::new(IN_FLIGHT)),
                state: Mutex::default(),
                ending: Mutex::default(),
            }),
            noted: Vec::new(),
            journal: tokio::sync::Mutex::default(),
            _life: life,
        }
    }

    /// Goes on from the notes of another attempt: refers to its segments. One that turns out to be over is left alone.
    pub(super) async fn adopt(&mut self, left: Left) -> Result<()> {
        let Attempt { store, blob, .. } = &*self.attempt;
        // Before its marker is looked at: it is over before it looks for this.
        let adopted = store.names().adopted(*blob, left.attempt);
        let id = Bytes::from(self.attempt.id.to_string());
        store.bucket().put(&adopted, vec![id]).await?;
        if !store.is_on(*blob, left.attempt).await? {
            return Ok(());
        }
        let journal = self.journal.get_mut();
        let places = left
            .notes
            .values()
            .map(|placed| (placed.note.index, placed.place));
        locked(&self.attempt.state).places = places.collect();
        self.noted = left
            .notes
            .values()
            .map(|placed| placed.note.clone())
            .collect();
        journal.notes = left.notes;
        journal.write_all(&self.attempt).await
    }

    async fn commit_now(&self, manifest: Bytes) -> Result<()> {
        let Attempt {
            store,
            blob,
            id,
            slot,
            ..
        } = &*self.attempt;
        let (blob, id) = (*blob, *id);
        if !store.is_on(blob, id).await? {
            return Err(discarded());
        }
        let contents = records::contents(*slot, &self.attempt.places()?, manifest)?;
        let key = store.names().manifest(blob, id);
        let put = store.bucket().put_once(&key, contents);
        let key = put.await?;
        // After the manifest is there, so that whoever discards it from now on knows of it.
        match store.find(blob).await {
            Ok(Some(_)) => {
                store.bucket().delete(&key).await?;
                return Err(there_already());
            }
            Ok(None) => {}
            // A pointer that leads nowhere is no blob.
            Err(error) if error.kind() == ErrorKind::Damaged => {}
            Err(error) => return Err(error),
        }
        let name = file_name(&key).to_owned();
        let pointer = records::pointer(id, &name);
        let put = store
            .bucket()
            .put(&store.names().pointer(blob), vec![pointer])
            .await;
        // Whatever became of the request: the pointer tells. And whoever discards the attempt has said so in its marker
        // before looking at the pointer, or sees it.
        let told = store.pointer(blob).await?;
        if told != Some((id, name)) {
            put?;
            return Err(there_already());
        }
        if !store.is_on(blob, id).await? {
            return Err(discarded());
        }
        Ok(())
    }

    /// Removes what the blob does not need. Where that fails it is named by `list_staged`.
    async fn tidy(&self, alone: bool) {
        let Attempt {
            store, blob, id, ..
        } = &*self.attempt;
        let tidied = if alone {
            store
                .bucket()
                .delete(&store.names().marker(*blob, *id))
                .await
        } else {
            store.sweep(*blob).await
        };
        if let Err(error) = tidied {
            tracing::warn!(blob.id = %blob, error = %error.chain(), "staged objects stay behind");
        }
    }
}

impl Drop for StagedObjects {
    fn drop(&mut self) {
        // What is in it holds the attempt.
        locked(&self.attempt.ending).abort_all();
    }
}

#[async_trait::async_trait]
impl Staged for StagedObjects {
    fn noted(&self) -> &[Note] {
        &self.noted
    }

    fn segment(&self, index: u32) -> Result<Box<dyn SegmentWriter>> {
        self.attempt.failed.check()?;
        Ok(Box::new(ObjectWriter {
            key: self.attempt.key(index),
            attempt: Arc::clone(&self.attempt),
            index,
            gathered: Vec::new(),
            length: 0,
            taken: 0,
            upload: None,
            over: false,
        }))
    }

    async fn checkpoint(&self, notes: Vec<Note>) -> Result<()> {
        self.attempt.failed.check()?;
        let mut journal = self.journal.lock().await;
        self.attempt.settle().await?;
        if notes.is_empty() {
            return Ok(());
        }
        let noted = async {
            // A zombie writes no more than what was in flight.
            let Attempt {
                store, blob, id, ..
            } = &*self.attempt;
            if !store.is_on(*blob, *id).await? {
                return Err(discarded());
            }
            journal.append(&self.attempt, notes).await
        };
        noted
            .await
            .inspect_err(|error| self.attempt.failed.note(error))
    }

    async fn commit(&self, manifest: Bytes) -> Result<()> {
        self.attempt.failed.check()?;
        let journal = self.journal.lock().await;
        self.attempt.settle().await?;
        // Nothing comes after a commit, however it ends.
        self.attempt.failed.note(&failed_before());
        self.commit_now(manifest).await?;
        self.tidy(journal.next == 0).await;
        Ok(())
    }

    async fn abandon(&self) -> Result<()> {
        self.attempt.failed.note(&failed_before());
        let Attempt {
            store, blob, id, ..
        } = &*self.attempt;
        // A checkpoint that is on has to end first: it waits for what is being written.
        let journal = self.journal.lock().await;
        let mut ending = std::mem::take(&mut *locked(&self.attempt.ending));
        ending.shutdown().await;
        let marker = store.names().marker(*blob, *id);
        let over = store.bucket().put(&marker, vec![records::marker_over()]);
        over.await?;
        let uploads = std::mem::take(&mut locked(&self.attempt.state).uploads);
        for (key, upload) in &uploads {
            store.bucket().abort(key, upload).await?;
        }
        let prefix = store.names().attempt(*blob, *id);
        let mut keys = BTreeSet::new();
        let list = store.bucket().list(&prefix, |entry| {
            keys.insert(entry.key);
        });
        list.await?;
        // Whatever the listing knows yet.
        let own = locked(&self.attempt.state).places.clone();
        let own = own.iter().filter(|(_, place)| place.attempt == *id);
        keys.extend(own.map(|(index, _)| self.attempt.key(*index)));
        // In this order: who adopts segments says so first, and that goes only once what refers to them is committed.
        let adopted = store.names().adopted(*blob, *id);
        let is_adopted = store.bucket().get(&adopted, SMALL).await?.is_some();
        // An heir may have committed, and so may this attempt itself, without knowing it.
        if let Some(found) = store.find(*blob).await? {
            for key in store.keys_of(*blob, &found) {
                keys.remove(&key);
            }
        }
        if is_adopted {
            // Another one refers to what was noted. It goes with that one, or with the blob.
            for index in journal.notes.keys() {
                keys.remove(&self.attempt.key(*index));
            }
            keys.remove(&adopted);
            return store.remove(*blob, keys.into_iter().collect()).await;
        }
        store.remove(*blob, keys.into_iter().collect()).await?;
        store.bucket().delete(&marker).await
    }
}

impl Journal {
    /// Notes segments that the store has.
    async fn append(&mut self, attempt: &Arc<Attempt>, notes: Vec<Note>) -> Result<()> {
        let placed = {
            let state = locked(&attempt.state);
            let placed = notes.into_iter().map(|note| {
                let place = state.places.get(&note.index).copied();
                place.map(|place| PlacedNote { place, note })
            });
            placed.collect::<Option<Vec<_>>>()
        };
        let placed =
            placed.ok_or_else(|| Error::internal("a segment is noted and not finished"))?;
        let key = self.put(attempt, records::notes(attempt.slot, placed.iter())?);
        let key = key.await?;
        self.loose.push(key);
        self.loose_notes += placed.len();
        self.notes
            .extend(placed.into_iter().map(|placed| (placed.note.index, placed)));
        // Each note is written again a few times at most, and a resume reads a bounded number of objects for each of them.
        if self.loose.len() >= LOOSE && 8 * self.loose_notes >= self.notes.len() {
            return self.write_all(attempt).await;
        }
        Ok(())
    }

    /// Writes all notes as one object, and removes the others after that.
    async fn write_all(&mut self, attempt: &Arc<Attempt>) -> Result<()> {
        let all = records::notes(attempt.slot, self.notes.values())?;
        let key = self.put(attempt, all).await?;
        let old = std::mem::replace(&mut self.loose, vec![key]);
        self.loose_notes = 0;
        attempt.store.bucket().delete_all(old).await
    }

    async fn put(&mut self, attempt: &Attempt, bytes: Bytes) -> Result<String> {
        let key = attempt
            .store
            .names()
            .notes(attempt.blob, attempt.id, self.next);
        self.next += 1;
        attempt.store.bucket().put(&key, vec![bytes]).await?;
        Ok(key)
    }
}

/// An upload in parts. It begins with the first of them.
struct Upload {
    attempt: Arc<Attempt>,
    key: String,
    id: OnceCell<String>,
}

impl Upload {
    async fn id(&self) -> Result<&str> {
        let begin = || async {
            let id = self.attempt.store.bucket().begin(&self.key).await?;
            let mut state = locked(&self.attempt.state);
            state.uploads.insert(self.key.clone(), id.clone());
            Ok(id)
        };
        self.id.get_or_try_init(begin).await.map(String::as_str)
    }

    async fn complete(&self, parts: Vec<String>, size: u64) -> Result<()> {
        let bucket = self.attempt.store.bucket();
        bucket
            .complete(&self.key, self.id().await?, parts, size)
            .await?;
        locked(&self.attempt.state).uploads.remove(&self.key);
        Ok(())
    }
}

/// The parts of an upload that are on their way.
struct Parts {
    upload: Arc<Upload>,
    sending: JoinSet<Result<(usize, String)>>,
    sent: usize,
}

impl Parts {
    fn send(&mut self, part: Vec<Bytes>, room: Room) {
        let (upload, index) = (Arc::clone(&self.upload), self.sent);
        self.sent += 1;
        self.sending.spawn(async move {
            let _room = room;
            let id = upload.id().await?;
            let bucket = upload.attempt.store.bucket();
            let put = bucket.put_part(&upload.key, id, index, part);
            Ok((index, put.await?))
        });
    }

    /// Takes the ends of parts that have ended, so that an error is met before the segment's end.
    fn ended(&mut self, done: &mut Vec<(usize, String)>) -> Result<()> {
        while let Some(ended) = self.sending.try_join_next() {
            done.push(ended.map_err(Error::internal).flatten()?);
        }
        Ok(())
    }

    async fn complete(mut self, mut done: Vec<(usize, String)>, size: u64) -> Result<()> {
        while let Some(ended) = self.sending.join_next().await {
            done.push(ended.map_err(Error::internal).flatten()?);
        }
        done.sort_unstable();
        let parts = done.into_iter().map(|(_, part)| part).collect();
        self.upload.complete(parts, size).await
    }
}

struct ObjectWriter {
    attempt: Arc<Attempt>,
    index: u32,
    key: String,
    gathered: Vec<Bytes>,
    /// Bytes in what is gathered, and in all.
    length: usize,
    taken: u64,
    /// The upload in parts, with those that have ended.
    upload: Option<(Parts, Vec<(usize, String)>)>,
    /// Set while a step is on; a step whose future was dropped does not reset it.
    over: bool,
}

impl ObjectWriter {
    /// Cuts the next part off what is gathered.
    fn cut(&mut self) -> Vec<Bytes> {
        let mut part = Vec::new();
        let mut room = PART;
        let mut rest = std::mem::take(&mut self.gathered).into_iter();
        for mut bytes in rest.by_ref() {
            if bytes.len() > room {
                part.push(bytes.split_to(room));
                self.gathered.push(bytes);
                room = 0;
                break;
            }
            room -= bytes.len();
            part.push(bytes);
        }
        self.gathered.extend(rest);
        self.length -= PART - room;
        part
    }

    async fn send(&mut self, part: Vec<Bytes>) -> Result<()> {
        let room = self.attempt.room().await?;
        let (parts, done) = self.upload.get_or_insert_with(|| {
            let upload = Upload {
                attempt: Arc::clone(&self.attempt),
                key: self.key.clone(),
                id: OnceCell::new(),
            };
            let parts = Parts {
                upload: Arc::new(upload),
                sending: JoinSet::new(),
                sent: 0,
            };
            (parts, Vec::new())
        });
        parts.send(part, room);
        parts.ended(done)
    }

    async fn finish_now(&mut self) -> Result<()> {
        let whole = self.upload.is_none();
        let rest = std::mem::take(&mut self.gathered);
        let (attempt, index, key) = (Arc::clone(&self.attempt), self.index, self.key.clone());
        let place = Place {
            attempt: attempt.id,
            length: u32::try_from(self.taken).map_err(Error::internal)?,
        };
        locked(&attempt.state).expected.insert(index);
        if whole {
            let room = attempt.room().await?;
            let task = Arc::clone(&attempt);
            locked(&attempt.ending).spawn(async move {
                let _room = room;
                task.store.bucket().put(&key, rest).await?;
                locked(&task.state).places.insert(index, place);
                Ok(())
            });
            return Ok(());
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        let Some((parts, done)) = self.upload.take() else {
            return Err(failed_before());
        };
        let (task, size) = (Arc::clone(&attempt), self.taken);
        locked(&attempt.ending).spawn(async move {
            parts.complete(done, size).await?;
            locked(&task.state).places.insert(index, place);
            Ok(())
        });
        Ok(())
    }
}

#[async_trait::async_trait]
impl SegmentWriter for ObjectWriter {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.attempt.failed.check()?;
        self.taken += bytes.len() as u64;
        if self.taken > self.attempt.slot {
            self.attempt.failed.note(&misplaced());
            return Err(misplaced());
        }
        if std::mem::replace(&mut self.over, true) {
            return Err(failed_before());
        }
        self.length += bytes.len();
        self.gathered.push(bytes);
        while self.length >= PART {
            let part = self.cut();
            let sent = self.send(part).await;
            sent.inspect_err(|error| self.attempt.failed.note(error))?;
        }
        self.over = false;
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.attempt.failed.check()?;
        if std::mem::replace(&mut self.over, true) {
            return Err(failed_before());
        }
        let finished = self.finish_now().await;
        finished.inspect_err(|error| self.attempt.failed.note(error))
    }
}
