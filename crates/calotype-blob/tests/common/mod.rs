//! What the tests share: sealed blobs over a store, and sources of known bytes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "each test file uses its own part of this, and clippy does not see that it is one"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use calotype_blob::seal::{PAGE, SegmentSize};
use calotype_blob::store::{BlobStore, FileStore, MemoryStore};
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_core::Result;
use calotype_core::id::{BlobId, StoreName};
use calotype_core::keys::{Authority, KeyUser, MasterKey};
use calotype_core::ports::{
    BlobFacts, Blobs, ByteStream, Clock, DigestChoice, Entropy, WriteOptions,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
#[allow(unused_imports, reason = "as above")]
pub use calotype_keys::{SERVICE, Wrong};
use calotype_keys::{ScriptedKeys, SystemEntropy};
use futures_util::{StreamExt, TryStreamExt, stream};

/// Pages in a segment of most tests.
pub const PAGES: u32 = 4;
/// Bytes in a segment of most tests.
pub const SEGMENT: usize = PAGES as usize * PAGE;

/// A clock that goes by a second at every look.
#[derive(Default)]
pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

pub fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

pub fn keys() -> Arc<ScriptedKeys> {
    Arc::new(ScriptedKeys::new(entropy()))
}

/// A customer's key.
pub fn customer(name: &str) -> MasterKey {
    let user = KeyUser {
        project: "p1".parse().expect("an id"),
        user: "u1".parse().expect("an id"),
        authority: Authority::Signed,
    };
    MasterKey::Customer(name.parse().expect("an id"), user)
}

pub fn segments_of(pages: u32) -> SealOptions {
    SealOptions {
        segment: SegmentSize::from_pages(pages).expect("within bounds"),
        ..SealOptions::default()
    }
}

pub fn sealed(store: Arc<dyn BlobStore>, pages: u32) -> SealedBlobs {
    sealed_by(keys(), store, segments_of(pages))
}

pub fn sealed_by(
    keys: Arc<ScriptedKeys>,
    store: Arc<dyn BlobStore>,
    options: SealOptions,
) -> SealedBlobs {
    SealedBlobs::new(
        store,
        keys,
        entropy(),
        Arc::new(TestClock::default()),
        options,
    )
}

pub fn in_memory() -> SealedBlobs {
    sealed(Arc::new(memory()), PAGES)
}

pub fn memory() -> MemoryStore {
    MemoryStore::new(Arc::new(TestClock::default()))
}

/// A directory on a disk, where the system's temporary ones are, and one in memory: a file store tells them apart.
pub fn on_disk_and_in_memory() -> [tempfile::TempDir; 2] {
    [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")].map(|made| made.expect("a directory"))
}

pub fn in_directory(path: &Path) -> SealedBlobs {
    let store = FileStore::open(path, entropy()).expect("a store");
    sealed(Arc::new(store), PAGES)
}

pub fn id(number: u128) -> BlobId {
    BlobId::from(uuid::Uuid::from_u128(number))
}

/// Bytes without any zero page, different for each seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn options() -> WriteOptions {
    WriteOptions {
        digests: DigestChoice {
            md5: true,
            sha256: true,
            sha512: true,
        },
        max_size: ByteSize::gib(1),
        expected_size: None,
        progress: Arc::new(AtomicU64::new(0)),
    }
}

/// A stream of `bytes` in chunks of `chunk`.
pub fn source(bytes: &[u8], chunk: usize) -> ByteStream {
    let bytes = Bytes::copy_from_slice(bytes);
    let count = bytes.len().div_ceil(chunk);
    stream::iter((0..count).map(move |number| {
        let end = bytes.len().min((number + 1) * chunk);
        Ok(bytes.slice(number * chunk..end))
    }))
    .boxed()
}

pub async fn put(blobs: &SealedBlobs, blob: BlobId, bytes: &[u8]) -> Result<BlobFacts> {
    write(blobs, blob, source(bytes, 100_000), options()).await
}

/// Writes a blob under the service's own key.
pub async fn write(
    blobs: &SealedBlobs,
    blob: BlobId,
    source: ByteStream,
    options: WriteOptions,
) -> Result<BlobFacts> {
    let key = blobs.fresh_key(blob, &MasterKey::Service).await?;
    blobs.write(blob, &key, source, options).await
}

pub async fn collect(stream: ByteStream) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

pub async fn get(blobs: &SealedBlobs, blob: BlobId) -> Result<Vec<u8>> {
    let reader = blobs.open(blob, None).await?;
    collect(reader.read(0..reader.facts().size.bytes())).await
}

/// What is committed in the only store.
pub async fn stored(blobs: &impl Blobs) -> Vec<(BlobId, Timestamp)> {
    blobs.list(&StoreName::main()).await.expect("listed")
}

/// What is staged in the only store.
pub async fn staged(blobs: &impl Blobs) -> Vec<(BlobId, Timestamp)> {
    blobs.list_staged(&StoreName::main()).await.expect("listed")
}

/// The one file of this name under `root`, with its path.
pub fn find(root: &Path, name: &str) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.file_name().is_some_and(|file| file == name) {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
