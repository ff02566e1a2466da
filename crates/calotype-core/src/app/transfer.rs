//! Bytes in and out of images.
//!
//! # Crash consistency
//! An upload moves its image to `saving` and records the blob that it writes under a lease, then writes the
//! blob, then makes the image `active` with it in one transaction. A crash before that transaction leaves an
//! image in `saving` and staged or committed bytes that no image refers to; when the lease has run out, the
//! reconciler moves the image back to `queued` and removes the bytes.
//!
//! # Hostile bytes
//! What comes is inspected on its way ([`crate::inspect`]): an image whose bytes refer to other files, are not in the format
//! that it says, or describe a larger disk than its `min_disk`, never becomes `active`.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;

use crate::access::Action;
use crate::app::{Call, Service};
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, ImageId, StoreName};
use crate::image::{Image, ImageStatus};
use crate::inspect::Inspector;
use crate::keys::{KeyPurpose, KeyRole, MasterKey};
use crate::ports::{BlobFacts, BlobReader, ByteStream, WrappedKey, WriteOptions};
use crate::size::ByteSize;

/// Bytes that a caller sends for an image.
pub struct Upload {
    /// The bytes.
    pub source: ByteStream,
    /// How many there will be, where the caller said so (`Content-Length`, `x-openstack-image-size`).
    pub expected_size: Option<ByteSize>,
    /// The store that they are to be in, where the caller chose one (`x-image-meta-store`).
    pub store: Option<String>,
}

/// An image whose bytes may be read.
pub struct Download {
    /// The image.
    pub image: Image,
    /// Its bytes.
    pub reader: Arc<dyn BlobReader>,
}

impl Service {
    /// Gives a `queued` image its bytes. On return it is `active`, durably.
    ///
    /// The future may be dropped at any point, as when a client disconnects: the image is `queued` again once
    /// the clean-up, which outlives the future, has run, or the lease has ended.
    ///
    /// # Errors
    /// NotFound, Forbidden; Conflict where the image is not `queued` or has no formats; TooLarge, also where the
    /// project has no room for the bytes;
    /// InvalidRequest where the size is not the expected one, or the disk is larger than `min_disk`; UnsupportedMediaType where the bytes are not what
    /// the image says or refer to other files; StorageFull; Gone where the image was deleted
    /// meanwhile. After an error other than Gone the image is `queued` again.
    pub async fn upload(
        self: &Arc<Self>,
        call: &Call,
        id: ImageId,
        upload: Upload,
    ) -> Result<Image> {
        for also in [Action::ImagesGet, Action::ImagesUpdate] {
            self.authorize(call, also)?;
        }
        let allowed = self.authorize(call, Action::ImagesUpload)?;
        let image = self.owned_image(&allowed, id).await?;
        check_formats(&image)?;
        let store = self.chosen_store(upload.store.as_deref())?;
        let max_size = self
            .settings
            .limits
            .max_image_size
            .unwrap_or(ByteSize::new(i64::MAX as u64));
        if upload.expected_size.is_some_and(|size| size > max_size) {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("The image is larger than the maximum of {max_size}."),
            ));
        }
        if image.status != ImageStatus::Queued {
            return Err(not_queued(&image));
        }
        let blob = BlobId::random(self.entropy.as_ref());
        // Before the upload is begun: its transaction may be committed though nobody waits for it any more.
        let guard = Abandon {
            service: Arc::clone(self),
            image: id,
            blob,
            armed: true,
        };
        let lease = self.settings.upload_lease;
        let first = self.first_reservation(upload.expected_size);
        let stored = match self.catalog.begin_upload(id, blob, lease, first).await {
            Ok((image, granted)) => {
                let upload = Upload {
                    source: self.reserving(blob, granted, upload.source),
                    ..upload
                };
                let stored = async {
                    self.place_upload(blob, store.as_ref()).await?;
                    self.inspect_and_store(call, &image, blob, max_size, upload)
                        .await
                };
                stored.await
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok((facts, virtual_size)) => {
                let detail = serde_json::json!({ "size": facts.size });
                let event = self.event(call, "uploadImage", id, detail);
                let trail = crate::ports::Trail {
                    event,
                    answer: None,
                };
                let finished = self
                    .catalog
                    .finish_upload(id, blob, &facts, virtual_size, self.byte_limit(), trail)
                    .await;
                guard.settle(finished).await
            }
            Err(error) => guard.settle(Err(error)).await,
        }
    }

    /// Has the bytes go where the caller chose. Nothing of them is written yet.
    async fn place_upload(&self, blob: BlobId, store: Option<&StoreName>) -> Result<()> {
        let Some(store) = store else { return Ok(()) };
        if self.catalog.place_upload(blob, store).await? {
            return Ok(());
        }
        Err(Error::conflict("The upload was ended by another."))
    }

    /// Writes the blob of an image that is `saving`: it is judged by the formats that the image has now, not by those
    /// that it had when the request came.
    async fn inspect_and_store(
        &self,
        call: &Call,
        image: &Image,
        blob: BlobId,
        max_size: ByteSize,
        upload: Upload,
    ) -> Result<(BlobFacts, Option<ByteSize>)> {
        check_formats(image)?;
        let key = self.fresh_key(call, image, blob).await?;
        let inspection = Inspection::of(image);
        let upload = Upload {
            source: inspection.watch(upload.source),
            ..upload
        };
        let facts = self.store(blob, &key, max_size, upload).await?;
        Ok((facts, inspection.virtual_size()?))
    }

    /// The data key of a blob that is about to be written for an image, under the image's master key.
    async fn fresh_key(&self, call: &Call, image: &Image, blob: BlobId) -> Result<WrappedKey> {
        let master = match &image.cmk_id {
            None => MasterKey::Service,
            Some(key) => {
                let user = self.key_user(call)?;
                let checked = self.keys.check(&user, key, KeyPurpose::Seal).await;
                checked.map_err(|fault| withheld(fault.into_error(KeyRole::Target)))?;
                MasterKey::Customer(key.clone(), user)
            }
        };
        self.new_data_key(blob, &master).await.map_err(withheld)
    }

    /// Writes the blob while keeping the upload's lease alive.
    async fn store(
        &self,
        blob: BlobId,
        key: &WrappedKey,
        max_size: ByteSize,
        upload: Upload,
    ) -> Result<BlobFacts> {
        let options = WriteOptions {
            digests: self.settings.digests,
            max_size,
            expected_size: upload.expected_size,
            progress: Arc::new(AtomicU64::new(0)),
        };
        tokio::select! {
            biased;
            facts = self.blobs.write(blob, key, upload.source, options) => facts,
            ended = self.keep_alive(blob) => Err(ended),
        }
    }

    /// Extends the lease until the upload turns out to be ended by another.
    async fn keep_alive(&self, blob: BlobId) -> Error {
        let lease = self.settings.upload_lease;
        loop {
            tokio::time::sleep(lease / 4).await;
            match self.catalog.extend_upload(blob, lease).await {
                Ok(true) => {}
                Ok(false) => {
                    return Error::new(
                        ErrorKind::Gone,
                        "The image was deleted while its data was uploaded.",
                    );
                }
                Err(error) => {
                    tracing::warn!(error.chain = %error.chain(), "upload lease not extended");
                }
            }
        }
    }

    /// Opens an image's bytes for reading.
    ///
    /// # Errors
    /// NotFound; Forbidden where the image is deactivated and the caller is no administrator, or where the customer's
    /// key that seals it is gone, not enabled, or not the caller's to use; Conflict where there are no bytes yet (the
    /// native API answers 204 then); Damaged.
    pub async fn download(self: &Arc<Self>, call: &Call, id: ImageId) -> Result<Download> {
        let allowed = self.authorize_within(call, Action::ImagesGet)?;
        let image = self.seen_image(&allowed, id).await?.image;
        match image.status {
            ImageStatus::Active => {}
            ImageStatus::Deactivated if allowed.in_all_projects() => {}
            ImageStatus::Deactivated => {
                return Err(Error::forbidden(
                    "The requested image has been deactivated.",
                ));
            }
            ImageStatus::Queued | ImageStatus::Saving | ImageStatus::Killed => {
                return Err(Error::conflict("The image has no data yet."));
            }
        }
        if let Some(key) = &image.cmk_id {
            let user = self.key_user(call)?;
            let checked = self.keys.check(&user, key, KeyPurpose::Open).await;
            checked.map_err(|fault| withheld(fault.into()))?;
        }
        let blob = image
            .blob
            .ok_or_else(|| Error::internal(format!("image {id} has no blob")))?;
        let opened = self.blobs.open(blob, image.wrapped_key.as_ref()).await;
        let opened = self.watch_for_damage(opened.map_err(Error::from)).await;
        let reader = Watched {
            inner: opened.map_err(withheld)?,
            service: Arc::clone(self),
        };
        Ok(Download {
            image,
            reader: Arc::new(reader),
        })
    }

    /// Marks a blob that turned out to be damaged. A wrap or a key that is wrong is no damage of the blob's.
    pub(super) async fn watch_for_damage<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && let Some(blob) = error.damaged_blob()
            && let Err(error) = self.catalog.mark_damaged(blob).await
        {
            tracing::warn!(blob.id = %blob, error.chain = %error.chain(), "damage not marked");
        }
        outcome
    }
}

/// Who may see an image and not use its key is refused, whatever is wrong with the key.
fn withheld(error: Error) -> Error {
    match error.code() {
        Some(code) if error.kind() == ErrorKind::InvalidRequest => {
            Error::forbidden(error.message().to_owned()).with_code(code)
        }
        _ => error,
    }
}

/// A reader that has damage marked.
struct Watched {
    inner: Arc<dyn BlobReader>,
    service: Arc<Service>,
}

impl BlobReader for Watched {
    fn facts(&self) -> &BlobFacts {
        self.inner.facts()
    }

    fn read(&self, range: Range<u64>) -> ByteStream {
        let service = Arc::clone(&self.service);
        Box::pin(self.inner.read(range).then(move |piece| {
            let service = Arc::clone(&service);
            async move { service.watch_for_damage(piece).await }
        }))
    }
}

/// The look at the bytes of an image that has its formats.
pub(super) struct Inspection {
    inspector: Arc<Mutex<Inspector>>,
    /// The disk that must be large enough; none where that is not said, or the bytes are no disk but a medium to install from.
    disk: Option<ByteSize>,
}

impl Inspection {
    pub(super) fn of(image: &Image) -> Self {
        let format = image.disk_format.clone().unwrap_or_default();
        let container = image.container_format.as_deref().unwrap_or_default();
        let disk = (image.min_disk > 0 && format != "iso")
            .then(|| ByteSize::gib(u64::from(image.min_disk)));
        Self {
            inspector: Arc::new(Mutex::new(Inspector::new(format, container))),
            disk,
        }
    }

    /// The same bytes, ended by an error once they are known to be unacceptable.
    pub(super) fn watch(&self, source: ByteStream) -> ByteStream {
        let inspector = Arc::clone(&self.inspector);
        Box::pin(source.map(move |chunk| {
            let chunk = chunk?;
            lock(&inspector).feed(&chunk)?;
            Ok(chunk)
        }))
    }

    pub(super) fn virtual_size(&self) -> Result<Option<ByteSize>> {
        let size = lock(&self.inspector).finish()?;
        match (size, self.disk) {
            (Some(size), Some(disk)) if size > disk => Err(Error::invalid(format!(
                "The image describes a disk of {size}, which does not fit on its min_disk of {disk}."
            ))
            .with_code(ImsCode::IMG_0055)),
            _ => Ok(size),
        }
    }
}

fn lock(inspector: &Mutex<Inspector>) -> MutexGuard<'_, Inspector> {
    inspector.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn check_formats(image: &Image) -> Result<()> {
    if image.disk_format.is_some() && image.container_format.is_some() {
        return Ok(());
    }
    Err(Error::invalid(
        "Properties disk_format and container_format must be set before data is stored.",
    ))
}

fn not_queued(image: &Image) -> Error {
    Error::conflict(format!(
        "Image status transition from {} to saving is not allowed",
        image.status
    ))
}

/// Ends an upload that was begun: in order, or when the future that ran it is dropped.
struct Abandon {
    service: Arc<Service>,
    image: ImageId,
    blob: BlobId,
    armed: bool,
}

impl Abandon {
    async fn settle(mut self, outcome: Result<Image>) -> Result<Image> {
        if outcome.is_err() {
            clean_up(&self.service, self.image, self.blob).await;
        }
        self.armed = false;
        outcome
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (service, image, blob) = (Arc::clone(&self.service), self.image, self.blob);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let cleaning = self.service.cleaning.clone();
            cleaning.spawn_on(
                async move { clean_up(&service, image, blob).await },
                &runtime,
            );
        }
    }
}

/// Removes what an upload left. What fails here is left to the reconciler.
///
/// The last transaction may have been committed all the same, though its caller was gone or was told of an error:
/// the bytes then belong to an active image. So they go only where this call has ended the upload.
async fn clean_up(service: &Service, image: ImageId, blob: BlobId) {
    match service.catalog.abort_upload(image, blob).await {
        Ok(true) => {
            service.remove_bytes(blob).await;
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(image.id = %image, blob.id = %blob, error.chain = %error.chain(), "upload not ended");
        }
    }
}
