//! Pieces of blobs on this machine's disk, for the next reader.
//!
//! A piece is kept sealed as it is, in a file of its own, and nothing is believed of it: a file of another length is no piece,
//! and who reads one whose pages do not authenticate removes it and asks the store. So nothing here is made durable, and a
//! crash leaves at most files that are found out.
//!
//! # What it holds
//! As many bytes as it may, and what was read longest ago goes first. Several processes may share a directory: then each
//! keeps to the bound by what it knows.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Pieces that are being written at once. One that comes when the disk is so far behind is not kept.
const WRITES: usize = 8;

/// What the name of a file ends with until it is whole.
const UNFINISHED: &str = ".tmp";

/// A directory of pieces. Clones are the same one.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    root: PathBuf,
    most: u64,
    pieces: Mutex<Pieces>,
    writes: Arc<Semaphore>,
    unfinished: AtomicU64,
}

/// What is there: sizes by name, and names by when they were last used.
#[derive(Default)]
struct Pieces {
    known: HashMap<String, (u64, u64)>,
    by_use: BTreeMap<u64, String>,
    bytes: u64,
    next: u64,
}

impl Pieces {
    fn touch(&mut self, name: &str) {
        if let Some((_, used)) = self.known.get_mut(name) {
            self.by_use.remove(used);
            *used = self.next;
            self.by_use.insert(self.next, name.to_owned());
            self.next += 1;
        }
    }

    fn add(&mut self, name: String, size: u64) {
        self.remove(&name);
        self.known.insert(name.clone(), (size, self.next));
        self.by_use.insert(self.next, name);
        self.next += 1;
        self.bytes += size;
    }

    fn remove(&mut self, name: &str) {
        if let Some((size, used)) = self.known.remove(name) {
            self.by_use.remove(&used);
            self.bytes -= size;
        }
    }

    /// Takes out what has to go.
    fn over(&mut self, most: u64) -> Vec<String> {
        let mut gone = Vec::new();
        while self.bytes > most
            && let Some((_, name)) = self.by_use.pop_first()
        {
            if let Some((size, _)) = self.known.remove(&name) {
                self.bytes -= size;
            }
            gone.push(name);
        }
        gone
    }
}

impl Cache {
    /// The cache in a directory, which is made where it does not exist, with what a former process left there.
    ///
    /// # Errors
    /// Internal where the directory can't be made or read.
    pub fn open(root: &Path, most: ByteSize) -> Result<Self> {
        let pieces = scan(root).map_err(Error::internal)?;
        let cache = Self(Arc::new(Shared {
            root: root.to_owned(),
            most: most.bytes(),
            pieces: Mutex::new(pieces),
            writes: Arc::new(Semaphore::new(WRITES)),
            unfinished: AtomicU64::new(0),
        }));
        cache.shrink();
        Ok(cache)
    }

    /// A piece of this length; nothing where there is none.
    pub(super) async fn get(&self, name: &str, length: usize) -> Option<Bytes> {
        if !self.pieces().known.contains_key(name) {
            return None;
        }
        let path = self.0.root.join(name);
        let read = spawn_blocking(move || read_whole(&path, length)).await;
        let bytes = read.ok().and_then(io::Result::ok);
        match &bytes {
            Some(_) => self.pieces().touch(name),
            None => self.remove(name),
        }
        bytes
    }

    /// Keeps a piece, some time after this returns; or not, where the disk has enough to do.
    pub(super) fn put(&self, name: String, bytes: Bytes) {
        let Ok(turn) = Arc::clone(&self.0.writes).try_acquire_owned() else {
            return;
        };
        let cache = self.clone();
        spawn_blocking(move || {
            let _turn = turn;
            match cache.write(&name, &bytes) {
                Ok(()) => {
                    cache.pieces().add(name, bytes.len() as u64);
                    cache.shrink();
                }
                Err(error) => tracing::debug!(%error, "a piece is not kept"),
            }
        });
    }

    /// Forgets a piece.
    pub(super) fn remove(&self, name: &str) {
        self.pieces().remove(name);
        // One that is not there is gone too.
        let _ = fs::remove_file(self.0.root.join(name));
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let number = self.0.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!("{}.{number}{UNFINISHED}", std::process::id());
        let unfinished = self.0.root.join(unfinished);
        let mut options = OpenOptions::new();
        let written = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&unfinished, self.0.root.join(name)));
        if written.is_err() {
            // It has no name that anybody reads, and the next start removes it.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn shrink(&self) {
        let gone = self.pieces().over(self.0.most);
        for name in gone {
            // Another process may have been faster.
            let _ = fs::remove_file(self.0.root.join(name));
        }
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.0.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in the directory, the longest there first.
fn scan(root: &Path) -> io::Result<Pieces> {
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.ends_with(UNFINISHED) {
            let _ = fs::remove_file(entry.path());
            continue;
        }
        let facts = entry.metadata()?;
        if facts.is_file() && is_piece(&name) {
            found.push((facts.modified()?, name, facts.len()));
        }
    }
    found.sort_unstable();
    let mut pieces = Pieces::default();
    for (_, name, size) in found {
        pieces.add(name, size);
    }
    Ok(pieces)
}

/// Nothing else that lies there is touched.
fn is_piece(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.iter().map(|part| part.len()).eq([32, 8, 8]) && parts.iter().all(hex)
}

fn read_whole(path: &Path, length: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(length);
    let file = File::open(path)?;
    file.take(length as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() != length {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> String {
        format!("{number:032x}.00000000.00000000")
    }

    async fn put(cache: &Cache, number: u8, length: usize) {
        cache.put(name(number), Bytes::from(vec![number; length]));
        // All turns: the write has ended.
        let all = cache.0.writes.acquire_many(WRITES as u32).await;
        drop(all.unwrap());
    }

    fn open(path: &Path) -> Cache {
        Cache::open(path, ByteSize::new(300)).unwrap()
    }

    #[tokio::test]
    async fn what_was_read_longest_ago_goes_first_also_over_a_restart() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("1.2.tmp"), b"unfinished").unwrap();
        std::fs::write(place.path().join("another's"), b"not ours").unwrap();
        let cache = open(place.path());
        for number in 1..=3 {
            put(&cache, number, 100).await;
        }
        assert_eq!(cache.get(&name(1), 100).await.unwrap(), [1; 100].as_slice());
        put(&cache, 4, 100).await;
        assert_eq!(cache.get(&name(2), 100).await, None);
        let cache = open(place.path());
        for number in [1, 3, 4] {
            let kept = cache.get(&name(number), 100).await;
            assert_eq!(kept.unwrap(), [number; 100].as_slice());
        }
        put(&cache, 5, 300).await;
        for number in [1, 3, 4] {
            assert_eq!(cache.get(&name(number), 100).await, None);
        }
        let mut left: Vec<_> = std::fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort_unstable();
        assert_eq!(left, [name(5), "another's".to_owned()]);
    }

    #[tokio::test]
    async fn a_file_of_another_length_is_no_piece() {
        let place = tempfile::tempdir().unwrap();
        let cache = open(place.path());
        for wrong in [0, 99, 101] {
            put(&cache, 1, 100).await;
            std::fs::write(place.path().join(name(1)), vec![1; wrong]).unwrap();
            assert_eq!(cache.get(&name(1), 100).await, None);
            assert!(!place.path().join(name(1)).exists());
        }
        put(&cache, 1, 100).await;
        std::fs::remove_file(place.path().join(name(1))).unwrap();
        assert_eq!(cache.get(&name(1), 100).await, None);
    }
}
