//! Blobs in a store that speaks S3: one in this process, also behind a network that fails.

#![expect(
    clippy::unwrap_used,
    reason = "the tests' own helpers: what fails here fails the test"
)]

mod common;
#[expect(
    clippy::expect_used,
    unreachable_pub,
    dead_code,
    reason = "shared with the black-box tests"
)]
#[path = "../../../tests/harness"]
mod harness {
    pub(crate) mod clock;
    pub(crate) mod faults;
    mod http;
    pub(crate) mod s3_files;
}

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use calotype_blob::store::{BlobStore, Buffer, Cache, Note, S3Store, Slot, Staged, Use};
use calotype_blob::{SealedBlobs, conformance};
use calotype_core::ErrorKind;
use calotype_core::id::BlobId;
use calotype_core::keys::MasterKey;
use calotype_core::ports::{Blobs as _, Depth, ResealOrder};
use calotype_core::size::ByteSize;
use calotype_keys::{ScriptedKeys, SystemEntropy};
use calotype_s3::{AccessKey, Bucket, Client, Connection, Limits, S3Options};
use common::{get, keys, noise, put, sealed_by, segments_of, staged};
use harness::clock::WallClock;
use harness::faults::{Fault, Network};
use harness::s3_files;

const ID: &str = "AKTEST";
const SECRET: &str = "a secret of forty characters, or as many";
const BUCKET: &str = "bucket";

/// A store over the files below a directory, with the bucket; its URL.
async fn serve(directory: &Path) -> String {
    std::fs::create_dir(directory.join(BUCKET)).unwrap();
    s3_files::serve(directory, (ID, SECRET)).await
}

/// A store that is given up after this time.
fn store_until(endpoint: &str, time_limit: Duration, cache: Option<Cache>) -> S3Store {
    let options = S3Options {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: AccessKey {
            id: ID.to_owned(),
            secret: SECRET.to_owned().into(),
        },
        path_style: true,
        allow_http: true,
        connection: Connection {
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: time_limit,
            time_limit,
        },
    };
    let client = Client::new(options, Arc::new(WallClock { ahead: 0 }));
    let entropy = Arc::new(SystemEntropy::new());
    let limits = Limits {
        connections: 16,
        attempt_timeout: time_limit,
        time_limit,
    };
    let bucket = Bucket::new(
        &client.unwrap(),
        "main",
        BUCKET,
        limits,
        Arc::clone(&entropy) as _,
    );
    S3Store::new(bucket.unwrap(), "calotype", cache, entropy)
}

fn store(endpoint: &str) -> S3Store {
    store_until(endpoint, Duration::from_secs(60), None)
}

/// A store of the test's own, with sealed blobs in it, behind a network.
struct World {
    place: tempfile::TempDir,
    url: String,
    network: Network,
    keys: Arc<ScriptedKeys>,
}

impl World {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let url = serve(place.path()).await;
        Self {
            network: Network::before(&url),
            place,
            url,
            keys: keys(),
        }
    }

    /// Blobs with segments of 16 MiB.
    fn blobs(&self, store: S3Store) -> SealedBlobs {
        sealed_by(Arc::clone(&self.keys), Arc::new(store), segments_of(256))
    }

    /// Reached through the network.
    fn far(&self) -> SealedBlobs {
        self.blobs(store(self.network.url()))
    }

    /// Reached without it.
    fn near(&self) -> SealedBlobs {
        self.blobs(store(&self.url))
    }

    /// The files of the objects below a prefix whose names end so.
    fn files(&self, below: &str, end: &str) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![self.place.path().join(BUCKET).join("calotype").join(below)];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else if path.to_str().unwrap().ends_with(end) {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// A blob whose id looks like no segment's key.
fn id(number: u128) -> BlobId {
    common::id(u128::MAX - number)
}

/// One segment of several parts, and one of a single one.
const LENGTH: usize = 20 << 20;

/// Of 2 MiB each: the tags make one more of each segment.
const CHUNKS: usize = 8 + 1 + 2 + 1;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_does_what_every_store_must() {
    let place = tempfile::tempdir().unwrap();
    let url = serve(place.path()).await;
    conformance::all(&store(&url)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_survives_one_fault_of_each_of_its_requests() {
    let world = World::new().await;
    let (far, near, bytes) = (world.far(), world.near(), noise(LENGTH, 1));
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Reset,
        Fault::Lost,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let requests = [
            ("PUT", "/staged/"),
            ("POST", "?uploads"),
            ("PUT", "partNumber=1&"),
            ("PUT", "partNumber=2&"),
            ("POST", "?uploadId="),
            ("PUT", "/00000001"),
            ("PUT", "/manifest"),
            ("PUT", "/blobs/"),
            ("GET", "/blobs/"),
            ("DELETE", "/staged/"),
        ];
        for (method, part) in requests {
            world.network.fail(method, part, fault, 1);
        }
        let before = world.network.met();
        put(&far, id(number as u128), &bytes).await.unwrap();
        assert_eq!(world.network.met() - before, requests.len(), "{fault:?}");
        assert!(
            get(&near, id(number as u128)).await.unwrap() == bytes,
            "{fault:?}"
        );
        assert_eq!(staged(&near).await, [], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_survives_one_fault_of_each_of_its_requests() {
    let world = World::new().await;
    let bytes = noise(LENGTH, 1);
    put(&world.near(), id(1), &bytes).await.unwrap();
    for fault in [
        Fault::Status(500),
        Fault::Status(429),
        Fault::Reset,
        Fault::Lost,
        Fault::Cut(10),
        Fault::Short(10),
        Fault::Wrong(0),
        Fault::Slow,
    ] {
        let requests = ["/blobs/", "/manifest", "/00000000", "/00000001"];
        for part in requests {
            world.network.fail("GET", part, fault, 1);
        }
        let before = world.network.met();
        // A store of its own, which remembers nothing.
        let read = get(&world.far(), id(1)).await;
        assert!(read.unwrap() == bytes, "{fault:?}");
        assert_eq!(world.network.met() - before, requests.len(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseal_reads_again_what_came_wrong_and_resumes_when_the_store_is_back() {
    let world = World::new().await;
    let bytes = noise(LENGTH, 1);
    put(&world.near(), id(1), &bytes).await.unwrap();
    let key = world.near().fresh_key(id(2), &MasterKey::Service).await;
    let key = key.unwrap();
    let order = || ResealOrder {
        source: id(1),
        source_key: None,
        target: id(2),
        target_key: key.clone(),
        project: "p1".parse().unwrap(),
        progress: Arc::default(),
    };
    // The source's second segment can't be had; of the first the last bytes of a chunk come wrong.
    world
        .network
        .fail("GET", "/00000000", Fault::Wrong(1 << 20), 1);
    world
        .network
        .fail("GET", "/00000001", Fault::Status(503), usize::MAX);
    let short = Duration::from_secs(3);
    // On a machine that is busy the first segment may take more tries than one.
    let mut noted = 0;
    for _ in 0..5 {
        let far = world.blobs(store_until(world.network.url(), short, None));
        let order = order();
        let error = far.reseal(order.clone()).await.unwrap_err();
        assert!(error.is_transient(), "{}", error.chain());
        noted = order.progress.noted.load(Ordering::Relaxed);
        if noted > 0 {
            break;
        }
    }
    assert_eq!(noted, 16 << 20, "the first segment was noted");
    world.network.heal();
    let resumed = order();
    world.far().reseal(resumed.clone()).await.unwrap();
    let found = resumed.progress.resumed.load(Ordering::Relaxed);
    assert_eq!(found, noted, "the first segment was not done again");
    assert!(get(&world.near(), id(2)).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_no_damage_and_wrong_bytes_are_never_given() {
    let world = World::new().await;
    let bytes = noise(300_000, 1);
    put(&world.near(), id(1), &bytes).await.unwrap();
    let always = usize::MAX;
    for (part, fault, kind) in [
        ("/00000000", Fault::Status(500), None),
        ("/00000000", Fault::Status(403), None),
        ("/00000000", Fault::Reset, None),
        ("/00000000", Fault::Stall, None),
        ("/00000000", Fault::Cut(10), None),
        ("/00000000", Fault::Short(10), None),
        ("/00000000", Fault::Wrong(0), Some(ErrorKind::Damaged)),
        ("/00000000", Fault::Wrong(270_000), Some(ErrorKind::Damaged)),
        ("/manifest", Fault::Status(500), None),
        ("/manifest", Fault::Stall, None),
        ("/manifest", Fault::Wrong(0), Some(ErrorKind::Damaged)),
        ("/blobs/", Fault::Reset, None),
    ] {
        world.network.fail("GET", part, fault, always);
        // What passes is tried again until the time is over, and damage is told at once.
        let time = Duration::from_secs(if kind.is_none() { 1 } else { 60 });
        let far = world.blobs(store_until(world.network.url(), time, None));
        let error = get(&far, id(1)).await.unwrap_err();
        match kind {
            Some(kind) => assert_eq!(error.kind(), kind, "{part} {fault:?}"),
            None => assert!(error.is_transient(), "{part} {fault:?}: {}", error.chain()),
        }
        world.network.heal();
        assert!(get(&world.far(), id(1)).await.unwrap() == bytes);
    }
    for end in ["/00000000", "/manifest"] {
        let files = world.files("data", "");
        let gone = files
            .iter()
            .find(|path| path.to_str().unwrap().contains(end));
        let gone = gone.unwrap();
        let kept = std::fs::read(gone).unwrap();
        std::fs::remove_file(gone).unwrap();
        let error = get(&world.near(), id(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{end}");
        std::fs::write(gone, &kept[..kept.len() - 1]).unwrap();
        let error = get(&world.near(), id(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{end}");
        std::fs::write(gone, kept).unwrap();
    }
    assert!(get(&world.near(), id(1)).await.unwrap() == bytes);
}

const SLOT: u64 = 4096;

async fn segment(staged: &Arc<dyn Staged>, text: &'static str) {
    let mut writer = staged.segment(0).unwrap();
    writer
        .append(Bytes::from_static(text.as_bytes()))
        .await
        .unwrap();
    writer.finish().await.unwrap();
}

fn note() -> Note {
    Note {
        index: 0,
        bytes: Bytes::from_static(b"note"),
    }
}

/// An attempt with one segment, which is noted.
async fn noted(store: &S3Store, blob: BlobId, text: &'static str) -> Arc<dyn Staged> {
    let staged = store.stage(blob, SLOT).await.unwrap();
    segment(&staged, text).await;
    staged.checkpoint(vec![note()]).await.unwrap();
    staged
}

async fn text(store: &S3Store, blob: BlobId) -> Vec<u8> {
    let stored = store.open(blob, Use::OnePass).await.unwrap().unwrap();
    let slot = Slot {
        index: 0,
        size: SLOT,
    };
    let read = stored.read(slot, 0, 4, Buffer::default()).await;
    read.unwrap().bytes().to_vec()
}

const MANIFEST: Bytes = Bytes::from_static(b"manifest");

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_after_another_attempts_and_after_a_discard_takes_nothing_away() {
    let world = World::new().await;
    let blob = id(1);
    // Two processes.
    let short = Duration::from_secs(5);
    let (zombies, heirs) = (
        store_until(world.network.url(), short, None),
        store(&world.url),
    );
    let zombie = zombies.stage(blob, SLOT).await.unwrap();
    segment(&zombie, "dead").await;
    let heir = heirs.stage(blob, SLOT).await.unwrap();
    segment(&heir, "heir").await;
    world
        .network
        .fail("PUT", "/blobs/", Fault::Late, usize::MAX);
    assert!(zombie.commit(MANIFEST).await.unwrap_err().is_transient());
    heir.commit(MANIFEST).await.unwrap();
    heirs.discard(blob).await.unwrap();
    assert_eq!(heirs.list_staged().await.unwrap(), []);
    // The zombie's request arrives now, and the pointer leads to what is gone.
    let heirs_pointer = std::fs::read(&world.files("blobs", "")[0]).unwrap();
    world.network.heal();
    world.network.wait_until_none_is_held();
    let pointer = || std::fs::read(&world.files("blobs", "")[0]).unwrap();
    assert_ne!(pointer(), heirs_pointer);
    assert_eq!(text(&heirs, blob).await, b"heir");
    heirs.discard(blob).await.unwrap();
    assert_eq!(pointer(), heirs_pointer, "it is mended");
    assert_eq!(text(&heirs, blob).await, b"heir");
    heirs.delete(blob).await.unwrap();
    assert!(heirs.open(blob, Use::Shared).await.unwrap().is_none());
    assert_eq!(world.files("data", "").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_another_process_goes_on_with_takes_nothing_away_when_it_is_abandoned() {
    let world = World::new().await;
    let blob = id(1);
    let (zombies, heirs) = (store(&world.url), store(&world.url));
    let zombie = noted(&zombies, blob, "text").await;
    let heir = heirs.resume(blob, SLOT).await.unwrap();
    assert_eq!(heir.noted(), [note()]);
    zombie.abandon().await.unwrap();
    heir.commit(MANIFEST).await.unwrap();
    assert_eq!(text(&heirs, blob).await, b"text");
    assert_eq!(heirs.list_staged().await.unwrap(), []);
    assert!(zombie.commit(MANIFEST).await.is_err());
    assert_eq!(text(&heirs, blob).await, b"text");
    heirs.delete(blob).await.unwrap();
    assert_eq!(world.files("data", "").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_abandoned_after_its_heir_has_committed_takes_nothing_away() {
    let world = World::new().await;
    let blob = id(1);
    let (zombies, heirs) = (store(&world.url), store(&world.url));
    let zombie = noted(&zombies, blob, "text").await;
    let heir = heirs.resume(blob, SLOT).await.unwrap();
    assert_eq!(heir.noted(), [note()]);
    heir.commit(MANIFEST).await.unwrap();
    let refused = zombie.commit(MANIFEST).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    zombie.abandon().await.unwrap();
    assert_eq!(text(&heirs, blob).await, b"text");
    // Nor does who cleans up after both.
    heirs.discard(blob).await.unwrap();
    assert_eq!(text(&heirs, blob).await, b"text");
    assert_eq!(heirs.list_staged().await.unwrap(), []);
    heirs.delete(blob).await.unwrap();
    assert_eq!(world.files("data", "").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_over_is_not_gone_on_with_and_what_it_writes_later_is_found() {
    let world = World::new().await;
    let blob = id(1);
    let (zombies, heirs) = (store(&world.url), store(&world.url));
    let zombie = noted(&zombies, blob, "dead").await;
    heirs.discard(blob).await.unwrap();
    assert_eq!(heirs.list_staged().await.unwrap(), []);
    let mut writer = zombie.segment(1).unwrap();
    writer.append(Bytes::from_static(b"late")).await.unwrap();
    writer.finish().await.unwrap();
    assert!(zombie.checkpoint(vec![note()]).await.is_err());
    let listed = heirs.list_staged().await.unwrap();
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [blob]);
    let heir = heirs.resume(blob, SLOT).await.unwrap();
    assert!(heir.noted().is_empty());
    heirs.discard(blob).await.unwrap();
    assert_eq!(world.files("data", "").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_notes_are_gone_on_with_and_lie_in_few_objects() {
    const COUNT: u32 = 150;
    let world = World::new().await;
    let (first, second) = (store(&world.url), store(&world.url));
    let staged = first.stage(id(1), SLOT).await.unwrap();
    let mut notes = Vec::new();
    for index in 0..COUNT {
        let mut writer = staged.segment(index).unwrap();
        writer.append(Bytes::from_static(b"s")).await.unwrap();
        writer.finish().await.unwrap();
        let note = Note {
            index,
            bytes: Bytes::from(index.to_be_bytes().to_vec()),
        };
        staged.checkpoint(vec![note.clone()]).await.unwrap();
        notes.push(note);
    }
    let objects = world.files("data", "");
    let objects = objects
        .iter()
        .filter(|path| path.to_str().unwrap().contains("/notes."));
    assert!(objects.count() < 70);
    drop(staged);
    let resumed = second.resume(id(1), SLOT).await.unwrap();
    assert_eq!(resumed.noted(), notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_ask_the_store_for_each_chunk_once_and_a_cache_keeps_them() {
    let world = World::new().await;
    let (kept, bytes) = (tempfile::tempdir().unwrap(), noise(LENGTH, 1));
    put(&world.near(), id(1), &bytes).await.unwrap();
    let asked = || world.network.asked("GET", "/0000000");
    let open = || {
        let cache = Cache::open(kept.path(), ByteSize::gib(1)).unwrap();
        let minute = Duration::from_secs(60);
        world.blobs(store_until(world.network.url(), minute, Some(cache)))
    };
    let blobs = Arc::new(open());
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let blobs = Arc::clone(&blobs);
        readers.spawn(async move { get(&blobs, id(1)).await.unwrap() });
    }
    for read in readers.join_all().await {
        assert!(read == bytes);
    }
    assert_eq!(asked(), CHUNKS);
    // What came too fast to be kept is when it is read again.
    assert!(get(&blobs, id(1)).await.unwrap() == bytes);
    // What is kept is whole by now, or is not kept.
    let before = asked();
    assert!(get(&open(), id(1)).await.unwrap() == bytes);
    assert!(
        asked() < before + 3,
        "{} of {before} again",
        asked() - before
    );
    // Nothing that lies there is believed.
    for entry in std::fs::read_dir(kept.path()).unwrap() {
        let path = entry.unwrap().path();
        let length = path.metadata().unwrap().len();
        std::fs::write(path, vec![7; length as usize]).unwrap();
    }
    let blobs = open();
    assert!(get(&blobs, id(1)).await.unwrap() == bytes);
    assert!(get(&blobs, id(1)).await.unwrap() == bytes);
    // A verification reads the store, whatever is kept.
    let before = asked();
    let check = blobs.check(id(1), None, Depth::Pages).await.unwrap();
    assert!(matches!(check, calotype_core::ports::BlobCheck::Whole(_)));
    assert!(asked() >= before + CHUNKS);
    let rewrapped = blobs.rewrap(id(1), None, &MasterKey::Service).await;
    assert!(rewrapped.is_ok());
}
