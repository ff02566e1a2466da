//! An attempt to write a blob into a directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use super::body::Body;
use super::file::{FileStore, JOURNAL, MANIFEST, blocking};
use super::journal;
use super::{Disk, FirstFailure, Note, SegmentWriter, Staged, failed_before, io_error, misplaced};
use crate::threads::in_background;

pub(super) struct StagedFile {
    attempt: Arc<Attempt>,
    noted: Vec<Note>,
    /// Where the next note goes. One checkpoint at a time.
    journal: Mutex<Option<Journal>>,
}

/// What an attempt and its writers share.
struct Attempt {
    store: FileStore,
    blob: BlobId,
    directory: PathBuf,
    body: Body,
    slot: u64,
    failed: FirstFailure,
}

impl Attempt {
    /// Runs `work`, away from tokio's threads that answer requests. An error ends the attempt, also where nobody
    /// waits for it any more.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.failed.check()?;
        let attempt = Arc::clone(self);
        let work = move || work(&attempt).inspect_err(|error| attempt.failed.note(error));
        match self.body.in_memory && in_background() {
            true => work(),
            false => blocking(work).await,
        }
    }
}

#[derive(Clone)]
struct Journal {
    file: Arc<File>,
    length: u64,
}

impl StagedFile {
    pub(super) fn new(
        store: FileStore,
        blob: BlobId,
        directory: PathBuf,
        body: Body,
        slot: u64,
    ) -> Self {
        Self {
            attempt: Arc::new(Attempt {
                store,
                blob,
                directory,
                body,
                slot,
                failed: FirstFailure::default(),
            }),
            noted: Vec::new(),
            journal: Mutex::default(),
        }
    }

    /// The same attempt with the notes that its journal holds. One that is torn ends where it is whole.
    pub(super) fn with_notes(mut self) -> io::Result<Self> {
        let path = self.attempt.directory.join(JOURNAL);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            other => Bytes::from(other?),
        };
        let Some((noted, whole)) = journal::decode(&bytes, self.attempt.slot) else {
            return Ok(self);
        };
        let file = self.attempt.store.disk.open_file(&path)?;
        // The next note must not stand behind a torn one.
        file.set_len(whole as u64)?;
        self.noted = noted;
        self.journal = Mutex::new(Some(Journal {
            file: Arc::new(file),
            length: whole as u64,
        }));
        Ok(self)
    }

    pub(super) fn notes(&self) -> usize {
        self.noted.len()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.attempt.directory
    }
}

#[async_trait::async_trait]
impl Staged for StagedFile {
    fn noted(&self) -> &[Note] {
        &self.noted
    }

    fn segment(&self, index: u32) -> Result<Box<dyn SegmentWriter>> {
        self.attempt.failed.check()?;
        let offset = u64::from(index) * self.attempt.slot;
        Ok(Box::new(FileWriter {
            attempt: Arc::clone(&self.attempt),
            at: Some(offset),
            taken: 0,
        }))
    }

    async fn checkpoint(&self, notes: Vec<Note>) -> Result<()> {
        let mut held = self.journal.lock().await;
        let journal = held.clone();
        *held = self
            .attempt
            .run(move |attempt| {
                attempt.body.sync().map_err(io_error)?;
                append_notes(attempt, journal, &notes)
            })
            .await?;
        Ok(())
    }

    async fn commit(&self, manifest: Bytes) -> Result<()> {
        self.attempt.failed.check()?;
        // Nothing comes after a commit, however it ends.
        self.attempt.failed.note(&failed_before());
        let attempt = Arc::clone(&self.attempt);
        blocking(move || commit(&attempt, &manifest)).await
    }

    async fn abandon(&self) -> Result<()> {
        self.attempt.failed.note(&failed_before());
        let attempt = Arc::clone(&self.attempt);
        blocking(move || {
            let store = &attempt.store;
            store
                .remove_staged(attempt.blob, &attempt.directory)
                .map_err(io_error)
        })
        .await
    }
}

/// Appends notes and makes them durable. The segments that they are about are durable already.
fn append_notes(
    attempt: &Attempt,
    journal: Option<Journal>,
    notes: &[Note],
) -> Result<Option<Journal>> {
    if notes.is_empty() {
        return Ok(journal);
    }
    let disk = &attempt.store.disk;
    let mut bytes = Vec::new();
    let (file, from, new) = match journal {
        Some(journal) => (journal.file, journal.length, false),
        None => {
            bytes = journal::head(attempt.slot);
            let path = attempt.directory.join(JOURNAL);
            (Arc::new(disk.make_file(&path).map_err(io_error)?), 0, true)
        }
    };
    journal::encode(notes, &mut bytes)?;
    let written = disk
        .write(&file, &bytes, from)
        .and_then(|()| disk.sync_file(&file))
        // The first time, the name too.
        .and_then(|()| match new {
            true => disk.sync_directory(&attempt.directory),
            false => Ok(()),
        });
    written.map_err(io_error)?;
    Ok(Some(Journal {
        file,
        length: from + bytes.len() as u64,
    }))
}

struct FileWriter {
    attempt: Arc<Attempt>,
    /// Where the next bytes go. Away while a step is on; a step whose future was dropped does not bring it back.
    at: Option<u64>,
    taken: u64,
}

#[async_trait::async_trait]
impl SegmentWriter for FileWriter {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.taken += length;
        if self.taken > self.attempt.slot {
            self.attempt.failed.note(&misplaced());
            return Err(misplaced());
        }
        let at = self.at.take().ok_or_else(failed_before)?;
        let write = move |attempt: &Attempt| {
            let room = attempt.store.check_room(length);
            room.and_then(|()| attempt.body.write(&bytes, at))
                .map_err(io_error)
        };
        self.attempt.run(write).await?;
        self.at = Some(at + length);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.attempt.failed.check()?;
        self.at.map(|_| ()).ok_or_else(failed_before)
    }
}

fn commit(attempt: &Attempt, manifest: &[u8]) -> Result<()> {
    let (store, blob) = (&attempt.store, attempt.blob);
    let disk = &store.disk;
    prepare(disk, &attempt.directory, &attempt.body, manifest).map_err(commit_error)?;
    // The rename is the commit. It replaces nothing: a directory that is there and not empty refuses it.
    let home = store.home(blob);
    disk.rename(&attempt.directory, &home)
        .map_err(commit_error)?;
    // Both names are made durable: the new one because the caller is about to be told so, the old one so
    // that no crash shows the blob twice.
    let durable = disk
        .sync_directory(&store.fan(blob))
        .and_then(|()| disk.sync_directory(&store.staged()));
    if let Err(error) = durable {
        // Nobody will be told of this blob, so it must not stay. Where that fails too, it is a whole
        // blob without a row, which the reconciler collects.
        if let Err(second) = store.uncommit(blob) {
            tracing::warn!(blob.id = %blob, error = %second, "a blob could not be taken back");
        }
        return Err(io_error(error));
    }
    // Of no more use. Not before: a crash in between would have lost the work. Where it stays, it goes with the blob.
    let _ = std::fs::remove_file(home.join(JOURNAL));
    Ok(())
}

fn prepare(disk: &Disk, directory: &Path, body: &Body, manifest: &[u8]) -> io::Result<()> {
    // The pages first: a manifest must never be on disk without what it describes.
    body.sync()?;
    let path = directory.join(MANIFEST);
    // A manifest of an attempt that died between here and the rename is written anew.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.make_file(&path)?;
    disk.write(&file, manifest, 0)?;
    disk.sync_file(&file)?;
    // Then the two names, before the directory gets the name that vouches for them.
    disk.sync_directory(directory)
}

fn commit_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, "The blob is there already.").with_context(error)
        }
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Conflict, "The write was discarded.").with_context(error)
        }
        _ => io_error(error),
    }
}
