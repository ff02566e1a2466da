//! What a key service that is away, slow to come back, or has lost a key does to blobs.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use calotype_blob::store::FileStore;
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_core::id::BlobId;
use calotype_core::ports::{Blobs, Clock, DataKey, KeyService, WrappedKey};
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use common::*;

/// A key service that can be switched off, and counts what it is asked.
struct Switched {
    inner: Arc<dyn KeyService>,
    /// 0 works, 1 is away, 2 has disabled the key.
    state: AtomicUsize,
    unwrapped: AtomicUsize,
}

impl Switched {
    fn answer(&self) -> Result<()> {
        match self.state.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => Err(Error::unavailable("the key service is away")),
            _ => Err(Error::forbidden("The master key is disabled.")),
        }
    }
}

#[async_trait::async_trait]
impl KeyService for Switched {
    async fn wrap(&self, blob: BlobId, key: &DataKey) -> Result<WrappedKey> {
        self.answer()?;
        self.inner.wrap(blob, key).await
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> Result<DataKey> {
        self.unwrapped.fetch_add(1, Ordering::SeqCst);
        self.answer()?;
        self.inner.unwrap(blob, wrapped).await
    }

    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>> {
        self.inner.seal_secret(context, secret)
    }

    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        self.inner.open_secret(context, sealed)
    }
}

#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst) * 1_000_000)
    }
}

struct Setup {
    directory: tempfile::TempDir,
    blobs: SealedBlobs,
    keys: Arc<Switched>,
    clock: Arc<SetClock>,
}

fn setup() -> Setup {
    let directory = tempfile::tempdir().expect("a directory");
    let store = FileStore::open(directory.path(), entropy()).expect("a store");
    let keys = Arc::new(Switched {
        inner: key_service(),
        state: AtomicUsize::new(0),
        unwrapped: AtomicUsize::new(0),
    });
    let clock = Arc::new(SetClock::default());
    let blobs = SealedBlobs::new(
        Arc::new(store),
        Arc::clone(&keys) as Arc<dyn KeyService>,
        entropy(),
        Arc::clone(&clock) as Arc<dyn Clock>,
        SealOptions::default(),
    );
    Setup {
        directory,
        blobs,
        keys,
        clock,
    }
}

#[tokio::test]
async fn without_a_key_service_nothing_is_written() {
    let setup = setup();
    setup.keys.state.store(1, Ordering::SeqCst);
    let error = put(&setup.blobs, id(1), b"secret").await.expect_err("away");
    assert!(error.is_transient());
    assert!(setup.blobs.list().await.expect("listed").is_empty());
    assert!(setup.blobs.list_staged().await.expect("listed").is_empty());
    setup.keys.state.store(0, Ordering::SeqCst);
    put(&setup.blobs, id(1), b"secret").await.expect("written");
}

#[tokio::test]
async fn a_key_service_that_is_away_is_no_damage() {
    let setup = setup();
    put(&setup.blobs, id(1), b"secret").await.expect("written");
    setup.keys.state.store(1, Ordering::SeqCst);
    let error = get(&setup.blobs, id(1)).await.expect_err("away");
    assert!(error.is_transient());
    let error = setup.blobs.check(id(1), true).await.expect_err("away");
    assert!(error.is_transient());
    setup.keys.state.store(0, Ordering::SeqCst);
    assert_eq!(get(&setup.blobs, id(1)).await.expect("read"), b"secret");
}

#[tokio::test]
async fn a_disabled_key_makes_its_blobs_unreadable_within_five_minutes() {
    let setup = setup();
    put(&setup.blobs, id(1), b"secret").await.expect("written");
    for second in [0, 100, 299] {
        setup.clock.0.store(second, Ordering::SeqCst);
        get(&setup.blobs, id(1)).await.expect("read");
    }
    assert_eq!(setup.keys.unwrapped.load(Ordering::SeqCst), 1);
    setup.keys.state.store(2, Ordering::SeqCst);
    get(&setup.blobs, id(1)).await.expect("still in the cache");
    setup.clock.0.store(300, Ordering::SeqCst);
    let error = get(&setup.blobs, id(1)).await.expect_err("disabled");
    assert_eq!(error.kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn a_cached_key_does_not_open_another_wrap() {
    let setup = setup();
    put(&setup.blobs, id(1), b"secret").await.expect("written");
    get(&setup.blobs, id(1)).await.expect("cached");
    let path = find(setup.directory.path(), "manifest");
    let mut manifest = std::fs::read(&path).expect("read");
    // Magic, version, id, name, the key's version and length, and the key: see the format.
    let wrapped_end = 8 + 2 + 16 + 1 + "service".len() + 4 + 2 + 61;
    manifest[wrapped_end - 1] ^= 1;
    std::fs::write(&path, manifest).expect("written");
    let error = get(&setup.blobs, id(1)).await.expect_err("another wrap");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(setup.keys.unwrapped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn no_plaintext_lies_in_the_store() {
    let setup = setup();
    let canary = b"a canary that must not be seen ".repeat(5000);
    put(&setup.blobs, id(1), &canary).await.expect("written");
    for name in ["body", "manifest"] {
        let bytes = std::fs::read(find(setup.directory.path(), name)).expect("read");
        assert!(!bytes.windows(12).any(|window| window == b"canary that "));
    }
}
