//! Several stores: which there are, what they hold, and moves of blobs between them.
//!
//! # Consistency
//! A blob is in one store. A move makes a copy of its sealed bytes in another one, and the transaction that ends the job says that the
//! blob is there from now on. Who has it open where it was reads on: there it stays for the deletion grace, and who needs longer
//! looks up again where it is.
//!
//! # Crash consistency
//! An attempt goes on where the last one noted its segments. Before the last transaction the blob is where it was; what is left of
//! the copy on the other side has a record, by which the reconciler removes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Call, Service};
use crate::access::Action;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, ImageId, JobId, StoreName};
use crate::image::Image;
use crate::job::{BlobMove, Claim, Job, JobType, Progress};
use crate::ports::{
    BlobRecord, BlobState, BlobsIn, CopyOrder, NewMove, Place, ResealProgress, Trail,
};
use crate::size::ByteSize;

/// A store, as its operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// Its name.
    pub name: StoreName,
    /// What it is called for people, if it is.
    pub description: Option<String>,
    /// What kind of store it is, in a word.
    pub kind: &'static str,
}

/// Since when stores are asked whether they answer that have not yet.
#[derive(Clone, Default)]
pub(super) struct Looks(Arc<Mutex<BTreeMap<StoreName, Instant>>>);

impl Looks {
    /// False where one has been asked for longer than `patience`.
    fn begin(&self, store: &StoreName, patience: Duration) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = asked.entry(store.clone()).or_insert_with(Instant::now);
        since.elapsed() < patience
    }

    fn end(&self, store: &StoreName) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.remove(store);
    }
}

/// The stores that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreList {
    /// All of them, by name.
    pub stores: Vec<StoreEntry>,
    /// The one that new blobs go to.
    pub default: StoreName,
}

impl StoreList {
    /// Whether there is anything to choose from.
    pub fn is_choice(&self) -> bool {
        self.stores.len() > 1
    }

    /// The store of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&StoreName> {
        let mut names = self.stores.iter().map(|store| &store.name);
        names.find(|store| store.as_str() == name)
    }
}

impl Default for StoreList {
    fn default() -> Self {
        Self {
            stores: vec![StoreEntry {
                name: StoreName::main(),
                description: None,
                kind: "file",
            }],
            default: StoreName::main(),
        }
    }
}

/// A store with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDetail {
    /// The store.
    pub store: StoreEntry,
    /// What the catalog knows to be in it.
    pub content: BlobsIn,
    /// What it still takes, where it can say so and answers.
    pub free: Option<ByteSize>,
}

impl Service {
    /// The stores, each with what it holds.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub async fn store_details(&self, call: &Call) -> Result<Vec<StoreDetail>> {
        self.authorize(call, Action::ServiceAdminister)?;
        let mut details = Vec::new();
        for store in &self.settings.stores.stores {
            let free = match self.blobs.free_space(Some(&store.name)).await {
                Ok(free) => free,
                Err(error) => {
                    tracing::warn!(store.name = %store.name, error.chain = %error.chain(), "free space not known");
                    None
                }
            };
            details.push(StoreDetail {
                store: store.clone(),
                content: self.catalog.store_content(&store.name).await?,
                free,
            });
        }
        Ok(details)
    }

    /// Whether each store answers within `patience`. One that has not is asked again when it has.
    pub async fn stores_that_answer(&self, patience: Duration) -> Vec<(StoreName, bool)> {
        let stores = self.settings.stores.stores.iter();
        let asked = stores.map(|store| async {
            let answers = self.answers(&store.name, patience).await;
            (store.name.clone(), answers)
        });
        join_all(asked).await
    }

    async fn answers(&self, store: &StoreName, patience: Duration) -> bool {
        if !self.looks.begin(store, patience) {
            return false;
        }
        // It is not broken off: a thread that waits for a file system is not, either.
        let (blobs, looks) = (Arc::clone(&self.blobs), self.looks.clone());
        let store = store.clone();
        let asked = tokio::spawn(async move {
            let answer = async {
                blobs.free_space(Some(&store)).await?;
                blobs.is_there(&store).await
            };
            let answers = answer.await.is_ok();
            looks.end(&store);
            answers
        });
        matches!(tokio::time::timeout(patience, asked).await, Ok(Ok(true)))
    }

    /// The blobs of a store that anything refers to, by id, those after `after`.
    ///
    /// # Errors
    /// Forbidden (IMG.0026); NotFound where there is no such store.
    pub async fn blobs_in(
        &self,
        call: &Call,
        store: &str,
        after: Option<BlobId>,
        limit: u32,
    ) -> Result<Vec<BlobRecord>> {
        self.authorize(call, Action::ServiceAdminister)?;
        let store = self.settings.stores.find(store);
        let store = store.ok_or_else(|| Error::not_found("There is no such store."))?;
        self.catalog.blobs_in(store, after, limit).await
    }

    /// The stores of images' bytes, by their blobs; nothing where there is one store only.
    pub async fn stores_of(
        &self,
        images: impl Iterator<Item = &Image>,
    ) -> Result<BTreeMap<BlobId, StoreName>> {
        if !self.settings.stores.is_choice() {
            return Ok(BTreeMap::new());
        }
        let blobs: Vec<BlobId> = images.filter_map(|image| image.blob).collect();
        self.catalog.stores_of(&blobs).await
    }

    /// Accepts the move of an image's bytes to another store, and returns its job's id. Other images that share them come with
    /// it.
    ///
    /// # Errors
    /// Forbidden (IMG.0026); NotFound where there is no such image; InvalidRequest where there is no such store; Conflict where the
    /// image has no bytes yet, they are there already, or are being moved.
    pub async fn move_bytes_of(&self, call: &Call, id: ImageId, store: &str) -> Result<JobId> {
        let allowed = self.authorize(call, Action::ServiceAdminister)?;
        let image = self.seen_image(&allowed, id).await?.image;
        let blob = image
            .blob
            .ok_or_else(|| Error::conflict("The image has no data yet."))?;
        self.order_move(call, blob, store, Some(&image)).await
    }

    /// As [`Service::move_bytes_of`], of a blob, whatever refers to it.
    ///
    /// # Errors
    /// As [`Service::move_bytes_of`].
    pub async fn move_blob(&self, call: &Call, blob: BlobId, store: &str) -> Result<JobId> {
        self.authorize(call, Action::ServiceAdminister)?;
        self.order_move(call, blob, store, None).await
    }

    async fn order_move(
        &self,
        call: &Call,
        blob: BlobId,
        store: &str,
        image: Option<&Image>,
    ) -> Result<JobId> {
        let store = self.settings.stores.find(store).ok_or_else(no_store)?;
        let record = self.catalog.blob(blob).await?;
        let stored = record.filter(|record| record.state == BlobState::Stored);
        let facts = stored.and_then(|record| record.facts);
        let facts = facts.ok_or_else(|| Error::not_found("There is no such blob."))?;
        // Who runs the service may do so without a project.
        let project = match (call.principal.project(), image) {
            (Some(project), _) => project.clone(),
            (None, Some(image)) => image.owner.clone(),
            (None, None) => call.principal.require_project()?.clone(),
        };
        let job = Job {
            source: image.map(|image| image.id),
            image_name: image.and_then(|image| image.name.clone()),
            progress: Progress {
                total: facts.size,
                ..Progress::default()
            },
            ..Job::accepted(
                JobId::random(self.entropy.as_ref()),
                project,
                call.principal.user.id.clone(),
                JobType::MoveBlob,
                self.clock.now(),
            )
        };
        let id = job.id.clone();
        let detail = serde_json::json!({
            "job_id": id.as_str(),
            "blob": blob.to_string(),
            "store": store.as_str(),
        });
        let about = image.map_or_else(|| blob.to_string(), |image| image.id.to_string());
        let order = NewMove {
            job,
            blob,
            to: Place {
                store: store.clone(),
                id: BlobId::random(self.entropy.as_ref()),
            },
        };
        let trail = Trail {
            event: self.event(call, "moveImage", about, detail),
            answer: None,
        };
        self.catalog.submit_move(&order, trail).await?;
        Ok(id)
    }

    /// The worker's part of a move: makes the copy.
    pub(super) async fn copy_blob(
        &self,
        claim: &Claim,
        order: &BlobMove,
        progress: &Arc<ResealProgress>,
    ) -> Result<()> {
        let copied = self.blobs.copy(CopyOrder {
            blob: order.blob,
            to: order.to.clone(),
            project: claim.job.project.clone(),
            progress: Arc::clone(progress),
        });
        self.watch_for_damage(copied.await).await
    }

    /// The store that a caller chose for bytes that are to come; none where the caller chose none.
    pub(super) fn chosen_store(&self, chosen: Option<&str>) -> Result<Option<StoreName>> {
        let find = |name| self.settings.stores.find(name).ok_or_else(no_store);
        Ok(chosen.map(find).transpose()?.cloned())
    }

    /// Checks the store that a caller chose for a replica that shares its source's bytes: it is where these are. A move that ends
    /// after this takes the replica along.
    pub(super) async fn check_is_in(&self, blob: BlobId, chosen: Option<StoreName>) -> Result<()> {
        let Some(chosen) = chosen else { return Ok(()) };
        match self.catalog.stores_of(&[blob]).await?.remove(&blob) {
            Some(store) if store != chosen => Err(Error::invalid(format!(
                "The replica shares its source's bytes, which are in the store {store}."
            ))),
            _ => Ok(()),
        }
    }
}

fn no_store() -> Error {
    Error::new(ErrorKind::InvalidRequest, "There is no such store.")
}
