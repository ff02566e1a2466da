//! Several stores: copies from one to another, and readers that follow.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use calotype_blob::seal::PAGE;
use calotype_blob::store::{BlobStore, MemoryStore};
use calotype_blob::{SealedBlobs, Stores};
use calotype_core::ErrorKind;
use calotype_core::id::{BlobId, StoreName};
use calotype_core::keys::MasterKey;
use calotype_core::ports::{BlobCheck, Blobs, CopyOrder, Depth, Labels as _, Place, Places};
use calotype_keys::{ScriptedKeys, Wrong};
use common::*;
use futures_util::StreamExt as _;

/// Where blobs are, as a test says.
#[derive(Default)]
struct Known(Mutex<HashMap<BlobId, Place>>);

#[async_trait::async_trait]
impl Places for Known {
    async fn place(&self, blob: BlobId) -> calotype_core::Result<Option<Place>> {
        Ok(self.0.lock().expect("a lock").get(&blob).cloned())
    }
}

fn place(store: &str, number: u128) -> Place {
    Place {
        store: store.parse().expect("a name"),
        id: id(number),
    }
}

struct World {
    known: Arc<Known>,
    near: Arc<MemoryStore>,
    far: Arc<MemoryStore>,
    keys: Arc<ScriptedKeys>,
    blobs: SealedBlobs,
}

impl World {
    fn new() -> Self {
        let (near, far) = (Arc::new(memory()), Arc::new(memory()));
        let known = Arc::new(Known::default());
        let keys = keys();
        let stores: [(&str, Arc<dyn BlobStore>); 2] = [
            ("near", Arc::clone(&near) as _),
            ("far", Arc::clone(&far) as _),
        ];
        let blobs = over(&stores, "near", &known, &keys);
        Self {
            known,
            near,
            far,
            keys,
            blobs,
        }
    }

    fn put(&self, number: u128, place: Place) {
        let mut known = self.known.0.lock().expect("a lock");
        known.insert(id(number), place);
    }

    /// A blob in the near store, by its own id.
    async fn write(&self, number: u128, master: &MasterKey, bytes: &[u8]) {
        self.put(number, place("near", number));
        let key = self.blobs.fresh_key(id(number), master).await;
        let key = key.expect("a key");
        let written = self
            .blobs
            .write(id(number), &key, source(bytes, 1000), options());
        written.await.expect("written");
    }

    async fn copy(&self, number: u128, to: &Place) -> calotype_core::Result<()> {
        let order = CopyOrder {
            blob: id(number),
            to: to.clone(),
            project: "p1".parse().expect("an id"),
            progress: Arc::default(),
        };
        self.blobs.copy(order).await
    }
}

fn over(
    stores: &[(&str, Arc<dyn BlobStore>)],
    default: &str,
    known: &Arc<Known>,
    keys: &Arc<ScriptedKeys>,
) -> SealedBlobs {
    let named = stores.iter().map(|(name, store)| {
        let name: StoreName = name.parse().expect("a name");
        (name, Arc::clone(store))
    });
    let named: BTreeMap<StoreName, Arc<dyn BlobStore>> = named.collect();
    let default = default.parse().expect("a name");
    let stores = Stores::new(named, default, Arc::clone(known) as _).expect("stores");
    let clock = Arc::new(TestClock::default());
    SealedBlobs::over(
        stores,
        Arc::clone(keys) as _,
        entropy(),
        clock,
        segments_of(PAGES),
    )
}

#[tokio::test]
async fn a_copy_is_the_same_and_is_read_in_its_place() {
    let world = World::new();
    for (number, length) in [0, 1, PAGE + 1, SEGMENT, 5 * SEGMENT + 3]
        .into_iter()
        .enumerate()
    {
        let number = number as u128 + 1;
        let mut bytes = noise(length, 7);
        let holes = bytes.chunks_mut(PAGE).skip(2).step_by(3);
        holes.for_each(|page| page.fill(0));
        world.write(number, &MasterKey::Service, &bytes).await;
        let to = place("far", 100 + number);
        // The second finds what the first has made.
        for _ in 0..2 {
            world.copy(number, &to).await.expect("copied");
        }
        world.put(number, to);
        let left = place("near", number);
        world.blobs.clear(&left).await.expect("cleared");
        assert!(get(&world.blobs, id(number)).await.expect("read") == bytes);
        let check = world.blobs.check(id(number), None, Depth::Pages).await;
        assert!(matches!(check, Ok(BlobCheck::Whole(_))), "{check:?}");
    }
    assert!(world.near.list().await.expect("listed").is_empty());
    let far = &place("far", 0).store;
    assert_eq!(world.blobs.list(far).await.expect("listed").len(), 5);
    assert!(
        world
            .blobs
            .list_staged(far)
            .await
            .expect("listed")
            .is_empty()
    );
}

#[tokio::test]
async fn an_open_blob_is_read_on_where_it_was_moved_to() {
    let world = World::new();
    let bytes = noise(20 * SEGMENT, 3);
    world.write(1, &MasterKey::Service, &bytes).await;
    let reader = world.blobs.open(id(1), None).await.expect("opened");
    let mut read = reader.read(0..bytes.len() as u64);
    let mut all = read
        .next()
        .await
        .expect("a piece")
        .expect("a piece")
        .to_vec();
    for (to, number) in [("far", 2), ("near", 3)] {
        let (to, from) = (place(to, number), world.known.place(id(1)).await);
        world.copy(1, &to).await.expect("copied");
        world.put(1, to);
        let from = from.expect("known").expect("a place");
        world.blobs.clear(&from).await.expect("cleared");
        let piece = read.next().await.expect("a piece").expect("a piece");
        all.extend_from_slice(&piece);
    }
    while let Some(piece) = read.next().await {
        all.extend_from_slice(&piece.expect("a piece"));
    }
    assert!(all == bytes);
}

#[tokio::test]
async fn where_one_store_is_left_blobs_are_found_by_the_names_that_they_got_there() {
    let world = World::new();
    let bytes = noise(SEGMENT + 5, 3);
    world.write(1, &MasterKey::Service, &bytes).await;
    let to = place("far", 9);
    world.copy(1, &to).await.expect("copied");
    world.put(1, to);
    let far = over(
        &[("far", Arc::clone(&world.far) as _)],
        "far",
        &world.known,
        &world.keys,
    );
    for _ in 0..2 {
        assert!(get(&far, id(1)).await.expect("read") == bytes);
    }
    // Who was not told of the other store has lost nothing.
    let near = over(
        &[("near", Arc::new(memory()) as _)],
        "near",
        &world.known,
        &world.keys,
    );
    let refused = near.check(id(1), None, Depth::Ends).await;
    assert!(matches!(refused, Ok(BlobCheck::Away)), "{refused:?}");
    let refused = get(&near, id(1)).await.expect_err("it was read");
    assert!(refused.is_transient(), "{refused}");
    assert_eq!(refused.damaged_blob(), None);
    world.known.0.lock().expect("a lock").clear();
    let gone = near.check(id(1), None, Depth::Ends).await.expect("checked");
    assert_eq!(gone, BlobCheck::Missing);
}

#[tokio::test]
async fn what_is_closed_is_copied_as_it_is() {
    let world = World::new();
    let bytes = noise(3 * SEGMENT, 3);
    world.write(1, &customer("k1"), &bytes).await;
    world.keys.set("k1", Some(Wrong::Disabled));
    let node = over(
        &[
            ("near", Arc::clone(&world.near) as _),
            ("far", Arc::clone(&world.far) as _),
        ],
        "near",
        &world.known,
        &world.keys,
    );
    let to = place("far", 9);
    let order = CopyOrder {
        blob: id(1),
        to: to.clone(),
        project: "p1".parse().expect("an id"),
        progress: Arc::default(),
    };
    node.copy(order).await.expect("copied");
    world.put(1, to);
    world.keys.set("k1", None);
    assert!(get(&world.blobs, id(1)).await.expect("read") == bytes);
}

#[tokio::test]
async fn labels_are_in_every_store_also_in_one_that_comes_later() {
    let (one, other) = (Arc::new(memory()), Arc::new(memory()));
    let stores = |all: &[(&str, &Arc<MemoryStore>)]| {
        let named = all.iter().map(|(name, store)| {
            let name: StoreName = name.parse().expect("a name");
            (name, Arc::clone(store) as Arc<dyn BlobStore>)
        });
        let default = "one".parse().expect("a name");
        Stores::new(named.collect(), default, Arc::new(Known::default())).expect("stores")
    };
    let text = bytes::Bytes::from_static(b"text");
    let first = stores(&[("one", &one)]);
    first.set_label("l", text.clone()).await.expect("set");
    assert!(first.is_label("l", &text).await.expect("looked"));
    let both = stores(&[("one", &one), ("other", &other)]);
    assert!(!both.is_label("l", &text).await.expect("looked"));
    assert_eq!(both.label("l").await.expect("read"), Some(text.clone()));
    both.set_label("l", text.clone()).await.expect("set");
    assert_eq!(other.label("l").await.expect("read"), Some(text));
    let nobody = Stores::new(
        BTreeMap::new(),
        StoreName::main(),
        Arc::new(Known::default()),
    );
    let refused = nobody.map(drop).expect_err("made");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
}
