//! Every case of the rule.

use std::sync::Arc;

use calotype_blob::store::MemoryStore;
use calotype_catalog::SqlCatalog;
use calotype_core::id::{EnterpriseProjectId, ImageId};
use calotype_core::image::{Digests, Image, ImageStatus, Visibility};
use calotype_core::ports::{
    AuditEvent, BlobFacts, ByteLimit, ImageLimit, Images as _, Reservation, Trail,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_keys::SystemEntropy;

use super::*;
use crate::system::SystemClock;

struct World {
    directory: tempfile::TempDir,
    store: MemoryStore,
    entropy: SystemEntropy,
}

impl World {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            store: MemoryStore::new(Arc::new(SystemClock)),
            entropy: SystemEntropy::new(),
        }
    }

    async fn catalog(&self, name: &str) -> SqlCatalog {
        let url = format!("sqlite://{}/{name}.db", self.directory.path().display());
        let options = calotype_catalog::Options::default();
        let catalog = SqlCatalog::open(&url, options, Arc::new(SystemClock)).await;
        catalog.unwrap()
    }

    /// A blob in the store.
    async fn blob(&self) -> BlobId {
        let blob = BlobId::random(&self.entropy);
        let staged = self.store.stage(blob, 4096).await.unwrap();
        staged
            .commit(Bytes::from_static(b"manifest"))
            .await
            .unwrap();
        blob
    }

    async fn start_as(&self, name: &str, catalog: &SqlCatalog) -> Result<(), Failure> {
        let name = name.parse().unwrap();
        check(catalog, (&name, &self.store), &self.entropy).await
    }

    async fn adopt(&self, catalog: &SqlCatalog) {
        let name = StoreName::main();
        let adopted = adopt(catalog, (&name, &self.store), &self.entropy);
        adopted.await.unwrap();
    }

    async fn start(&self, catalog: &SqlCatalog) -> Result<(), Failure> {
        self.start_as("main", catalog).await
    }
}

fn queued_image(id: ImageId) -> Image {
    let now = Timestamp::from_micros(1);
    Image {
        id,
        name: None,
        owner: "p1".parse().unwrap(),
        status: ImageStatus::Queued,
        visibility: Visibility::Private,
        disk_format: None,
        container_format: None,
        min_disk: 0,
        min_ram: 0,
        protected: false,
        hidden: false,
        size: None,
        virtual_size: None,
        digests: Digests::default(),
        blob: None,
        wrapped_key: None,
        damaged_at: None,
        cmk_id: None,
        enterprise_project: EnterpriseProjectId::Default,
        properties: std::collections::BTreeMap::new(),
        tags: Vec::new(),
        created_at: now,
        updated_at: now,
        active_at: None,
        version: 1,
    }
}

fn trail() -> Trail {
    Trail {
        event: AuditEvent {
            at: Timestamp::from_micros(1),
            trace: "test".to_owned(),
            request_id: "r".to_owned(),
            project: None,
            user: "u1".parse().unwrap(),
            resource_type: "image".to_owned(),
            resource_id: "1".to_owned(),
            detail: serde_json::json!({}),
        },
        answer: None,
    }
}

/// Makes a blob's row, as an upload that has begun does, or has ended.
async fn row(catalog: &SqlCatalog, blob: BlobId, stored: bool) {
    let entropy = SystemEntropy::new();
    let image = queued_image(ImageId::random(&entropy));
    let id = image.id;
    let inserted = catalog.insert_image(&image, ImageLimit(9), trail());
    inserted.await.unwrap();
    let lease = std::time::Duration::from_secs(60);
    catalog
        .begin_upload(id, blob, lease, Reservation::NONE)
        .await
        .unwrap();
    if stored {
        let facts = BlobFacts {
            size: ByteSize::new(1),
            stored: ByteSize::new(1),
            digests: Digests::default(),
        };
        let finished = catalog.finish_upload(id, blob, &facts, None, ByteLimit::NONE, trail());
        finished.await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_store_becomes_the_first_catalogs_and_no_others() {
    let world = World::new();
    let (one, other) = (world.catalog("one").await, world.catalog("other").await);
    for _ in 0..2 {
        world.start(&one).await.unwrap();
    }
    let refused = world.start(&other).await.unwrap_err();
    assert!(
        refused.message.contains("belongs to the catalog"),
        "{refused}"
    );
    assert!(refused.hint.unwrap().contains("adopt-store"));
    world.adopt(&other).await;
    world.start(&other).await.unwrap();
    world.start(&one).await.unwrap_err();
}

#[tokio::test]
async fn an_unlabelled_store_with_blobs_is_the_catalogs_that_knows_one_of_them() {
    let world = World::new();
    let (one, other) = (world.catalog("one").await, world.catalog("other").await);
    world.blob().await;
    let blob = world.blob().await;
    row(&one, blob, true).await;
    row(&other, BlobId::random(&world.entropy), true).await;
    for stranger in [&other, &world.catalog("third").await] {
        let refused = world.start(stranger).await.unwrap_err();
        assert!(refused.message.contains("knows none"), "{refused}");
    }
    assert_eq!(world.store.label("catalog").await.unwrap(), None);
    world.start(&one).await.unwrap();
    world.start(&other).await.unwrap_err();
}

#[tokio::test]
async fn an_empty_store_is_not_that_of_a_catalog_with_stored_blobs() {
    let world = World::new();
    let catalog = world.catalog("one").await;
    row(&catalog, BlobId::random(&world.entropy), false).await;
    world.start(&catalog).await.unwrap();

    let world = World::new();
    let catalog = world.catalog("one").await;
    row(&catalog, BlobId::random(&world.entropy), true).await;
    let refused = world.start(&catalog).await.unwrap_err();
    assert!(refused.message.contains("mounted"), "{refused}");
    world.adopt(&catalog).await;
    world.start(&catalog).await.unwrap();
}

#[tokio::test]
async fn an_empty_store_beside_one_with_blobs_is_the_catalogs_too() {
    let world = World::new();
    let catalog = world.catalog("one").await;
    row(&catalog, BlobId::random(&world.entropy), true).await;
    world.start_as("cold", &catalog).await.unwrap();
}

#[tokio::test]
async fn a_store_has_one_name() {
    let world = World::new();
    let catalog = world.catalog("one").await;
    world.start(&catalog).await.unwrap();
    let refused = world.start_as("cold", &catalog).await.unwrap_err();
    assert!(refused.message.contains("is the store main"), "{refused}");
    world.start(&catalog).await.unwrap();
}
