//! What a key service that is away, slow to come back, or has lost a key does to blobs.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use calotype_blob::seal::PAGE;
use calotype_blob::store::FileStore;
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::ports::{BlobCheck, Blobs, Clock, Depth, KeyService};
use calotype_core::time::Timestamp;
use calotype_keys::ScriptedKeys;
use common::*;

#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst) * 1_000_000)
    }
}

struct Setup {
    directory: tempfile::TempDir,
    /// The node that writes. It knows the keys that it made.
    writer: SealedBlobs,
    /// Another one, which has to ask for them.
    blobs: SealedBlobs,
    keys: Arc<ScriptedKeys>,
    clock: Arc<SetClock>,
}

fn setup() -> Setup {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = keys();
    let clock = Arc::new(SetClock::default());
    let node = || {
        let store = FileStore::open(directory.path(), entropy()).expect("a store");
        SealedBlobs::new(
            Arc::new(store),
            Arc::clone(&keys) as Arc<dyn KeyService>,
            entropy(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            SealOptions::default(),
        )
    };
    Setup {
        writer: node(),
        blobs: node(),
        directory,
        keys,
        clock,
    }
}

#[tokio::test]
async fn without_a_key_service_nothing_is_written() {
    let setup = setup();
    setup.keys.set(SERVICE, Some(Wrong::Away));
    let error = put(&setup.writer, id(1), b"secret")
        .await
        .expect_err("away");
    assert!(error.is_transient());
    assert!(stored(&setup.blobs).await.is_empty());
    assert!(staged(&setup.blobs).await.is_empty());
    setup.keys.set(SERVICE, None);
    put(&setup.writer, id(1), b"secret").await.expect("written");
}

#[tokio::test]
async fn a_key_service_that_is_away_is_no_damage() {
    let setup = setup();
    put(&setup.writer, id(1), b"secret").await.expect("written");
    setup.keys.set(SERVICE, Some(Wrong::Away));
    let error = get(&setup.blobs, id(1)).await.expect_err("away");
    assert!(error.is_transient());
    let check = setup
        .blobs
        .check(id(1), None, Depth::Pages)
        .await
        .expect("checked");
    assert_eq!(check, BlobCheck::Away);
    setup.keys.set(SERVICE, None);
    assert_eq!(get(&setup.blobs, id(1)).await.expect("read"), b"secret");
}

#[tokio::test]
async fn a_disabled_key_makes_its_blobs_unreadable_within_five_minutes() {
    let setup = setup();
    put(&setup.writer, id(1), b"secret").await.expect("written");
    for second in [0, 100, 299] {
        setup.clock.0.store(second, Ordering::SeqCst);
        get(&setup.blobs, id(1)).await.expect("read");
    }
    assert_eq!(setup.keys.unwrapped(), 1);
    setup.keys.set(SERVICE, Some(Wrong::Disabled));
    get(&setup.blobs, id(1)).await.expect("still in the cache");
    setup.clock.0.store(300, Ordering::SeqCst);
    let error = get(&setup.blobs, id(1)).await.expect_err("disabled");
    assert_eq!(error.code(), Some(ImsCode::IMG_0102));
}

#[tokio::test]
async fn a_read_that_goes_on_ends_when_its_key_was_disabled() {
    let setup = setup();
    let bytes = noise(20 * PAGE, 1);
    put(&setup.writer, id(1), &bytes).await.expect("written");
    let reader = setup.blobs.open(id(1), None).await.expect("opened");
    setup.keys.set(SERVICE, Some(Wrong::Disabled));
    setup.clock.0.store(299, Ordering::SeqCst);
    let early = collect(reader.read(0..PAGE as u64)).await.expect("a lease");
    assert!(early == bytes[..PAGE]);
    setup.clock.0.store(300, Ordering::SeqCst);
    let late = collect(reader.read(0..PAGE as u64)).await;
    assert_eq!(late.expect_err("disabled").code(), Some(ImsCode::IMG_0102));
    setup.keys.set(SERVICE, None);
    collect(reader.read(0..PAGE as u64)).await.expect("enabled");
}

#[tokio::test]
async fn a_cached_key_does_not_open_another_wrap() {
    let setup = setup();
    put(&setup.writer, id(1), b"secret").await.expect("written");
    get(&setup.blobs, id(1)).await.expect("cached");
    let path = find(setup.directory.path(), "manifest");
    let mut manifest = std::fs::read(&path).expect("read");
    // Magic, version, id, name, the key's version and length, and the key: see the format.
    let wrapped_end = 8 + 2 + 16 + 1 + "service".len() + 4 + 2 + 61;
    manifest[wrapped_end - 1] ^= 1;
    std::fs::write(&path, manifest).expect("written");
    let error = get(&setup.blobs, id(1)).await.expect_err("another wrap");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(setup.keys.unwrapped(), 2);
}

#[tokio::test]
async fn no_plaintext_lies_in_the_store() {
    let setup = setup();
    let canary = b"a canary that must not be seen ".repeat(5000);
    put(&setup.writer, id(1), &canary).await.expect("written");
    for name in ["body", "manifest"] {
        let bytes = std::fs::read(find(setup.directory.path(), name)).expect("read");
        assert!(!bytes.windows(12).any(|window| window == b"canary that "));
    }
}
