//! Images from objects in buckets (spec 2.3 to 2.5), and bytes from them for images that wait for some (spec 2.7).
//!
//! What can be known at once is checked before the caller has its answer: the objects are looked at, and their first and last
//! bytes say in which format they are. An object is pinned as it was then; the job reads that one or fails.
//!
//! # Consistency
//! What must hold when the import is accepted (the quota, the concurrency, the enterprise project, the state of an image
//! that waits) is decided again in the one transaction that writes jobs, images and usage.
//!
//! # Several disks
//! Each disk is a job of its own, a part of the one that the caller is told of: parts are done by any worker, at once or one
//! after the other. An image whose disk is there stays, whatever became of the others. The disks of an archive are parts of
//! its object.

mod archive;
mod fetch;
mod format;
mod order;

use std::ops::Range;

use self::format::Format;
use self::order::{check_format, check_order, properties_of};
use super::replicate::Keys;
use super::{Call, Keep, Service};
use crate::access::Action;
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{BlobId, EnterpriseProjectId, ImageId, JobId, KeyId, ProjectId, StoreName};
use crate::image::{Image, ImageStatus, Visibility};
use crate::job::{Import, Job, JobFamily, JobType, Progress};
use crate::keys::{KeyRole, requested_key};
use crate::object::ObjectAddress;
use crate::ports::{
    AuditEvent, ImageLimit, ImportPart, ImportedImage, NewDisksImport, NewImport, ObjectFacts,
    Trail,
};
use crate::size::ByteSize;

pub(super) use self::order::check_memory;
pub use self::order::{DataDisk, Firmware, ImportKind, ImportOrder, OsType};

/// A disk that an image is made of, as it was found.
struct Disk {
    order: ImportOrder,
    tags: Vec<String>,
    facts: ObjectFacts,
    /// Where it is in an archive; none: it is the object.
    part: Option<Range<u64>>,
    format: Format,
}

impl Disk {
    fn size(&self) -> ByteSize {
        let of_part = |part: &Range<u64>| ByteSize::new(part.end.saturating_sub(part.start));
        self.part.as_ref().map_or(self.facts.size, of_part)
    }
}

/// What the images of all disks of an import have in common.
struct Common<'a> {
    project: &'a ProjectId,
    key: Option<KeyId>,
    enterprise_project: EnterpriseProjectId,
    store: Option<StoreName>,
    limit: ImageLimit,
}

impl Service {
    /// Makes an image of an object, or of each of several that are the disks of one server. It is `queued` until a worker has the
    /// job, and `saving` until its bytes are there.
    ///
    /// # Errors
    /// IMG.0026; then for the order itself IMG.0166, 0056, 0111, 0055, 0115, 0116, 0118, 0155, for the key 0095, 0097,
    /// 0099, 0187; IMG.0015 and 0060 for the limits; for each object IMG.0069, 0057, 0058, 0059, 0072, 0055.
    pub async fn import(
        &self,
        call: &Call,
        order: &ImportOrder,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let allowed = self.authorize_within(call, order.kind.action())?;
        let project = call.principal.require_project()?;
        let orders = order.clone().disks()?;
        let mut tags = Vec::with_capacity(orders.len());
        for order in &orders {
            check_order(order)?;
            tags.push(self.tag_texts(&order.tags)?);
        }
        let store = self.chosen_store(order.store.as_deref())?;
        let key = requested_key(order.cmk_id.as_deref())?;
        if key.is_some() && order.kind == ImportKind::BareMetal {
            return Err(Error::ims(ImsCode::IMG_0118));
        }
        let wanted = order.enterprise_project.as_deref();
        let makes = std::slice::from_ref(&allowed);
        let enterprise_project = self.wanted_enterprise_project(makes, wanted).await?;
        if let Some(key) = &key {
            let strict = order.strictness;
            self.check_permission(call, strict, Action::DataKeysSeal, ImsCode::IMG_0099)?;
            let user = self.key_user(call)?;
            self.check_key(&user, key, KeyRole::Target).await?;
        }
        let limit = ImageLimit(self.settings.limits.images_per_project);
        self.check_room_to_import(project, Some(limit)).await?;
        let disks = self.find_disks(project, orders, tags).await?;
        self.check_room_for(project, sum(disks.iter().map(Disk::size)))
            .await?;
        let common = Common {
            project,
            key,
            enterprise_project,
            store,
            limit,
        };
        let mut parts = Vec::with_capacity(disks.len());
        for disk in disks {
            parts.push(self.plan_disk(call, &common, disk).await?);
        }
        let is_an_object = matches!(parts.as_slice(), [part] if part.import.part.is_none());
        match parts.pop() {
            Some(part) if is_an_object => self.submit_disk(&common, part, keep).await,
            last => {
                parts.extend(last);
                self.submit_disks(call, &common, parts, keep).await
            }
        }
    }

    /// The objects of these orders, or the disks in the one that is an archive.
    async fn find_disks(
        &self,
        project: &ProjectId,
        orders: Vec<ImportOrder>,
        tags: Vec<Vec<String>>,
    ) -> Result<Vec<Disk>> {
        let alone = orders.len() == 1;
        let mut disks = Vec::with_capacity(orders.len());
        for (order, tags) in orders.into_iter().zip(tags) {
            let (facts, format) = self.look_at(project, &order.object, order.quick).await?;
            if format == Format::Ova && alone && order.takes_archives() {
                return self.open_archive(order, &tags, &facts).await;
            }
            check_format(&order, format)?;
            disks.push(Disk {
                order,
                tags,
                facts,
                part: None,
                format,
            });
        }
        Ok(disks)
    }

    /// The job that makes a disk's image, with all that it takes.
    async fn plan_disk(&self, call: &Call, common: &Common<'_>, disk: Disk) -> Result<ImportPart> {
        let Disk { order, tags, .. } = disk;
        let mut image = self.imported_image(&order, common.project, disk.format);
        image.cmk_id.clone_from(&common.key);
        image.tags = tags;
        image.enterprise_project = common.enterprise_project;
        let key = common.key.clone();
        let mut import = self
            .plan_import(call, &order.object, disk.facts, key)
            .await?;
        import.part = disk.part;
        let mut job = self.import_job(call, common.project, order.kind.job_type(), &import);
        job.image = Some(image.id);
        job.image_name.clone_from(&image.name);
        let mut detail = serde_json::json!({
            "name": image.name,
            "object": order.object.as_str(),
            "job_id": job.id.as_str(),
        });
        let keys = Keys {
            source: None,
            target: image.cmk_id.clone(),
        };
        keys.tell(&mut detail);
        Ok(ImportPart {
            line: self.event(call, "createImage", image.id, detail),
            job,
            image,
            import,
        })
    }

    async fn submit_disk(
        &self,
        common: &Common<'_>,
        disk: ImportPart,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let image = ImportedImage::New {
            image: Box::new(disk.image),
            limit: common.limit,
        };
        let accepted = self.new_import(disk.job, image, disk.import, common.store.clone());
        self.submit_import(accepted, disk.line, keep).await
    }

    /// Accepts a job that the others are parts of.
    async fn submit_disks(
        &self,
        call: &Call,
        common: &Common<'_>,
        mut parts: Vec<ImportPart>,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let now = self.clock.now();
        let id = JobId::random(self.entropy.as_ref());
        let user = call.principal.user.id.clone();
        let mut ids: Vec<JobId> = parts.iter().map(|part| part.job.id.clone()).collect();
        ids.sort_unstable();
        for (part, own) in parts.iter_mut().zip(ids) {
            part.line.detail["job_id"] = id.as_str().into();
            part.job.id = own;
            part.job.parent = Some(id.clone());
            part.job.created_at = now;
        }
        let job = Job {
            progress: Progress {
                total: sum(parts.iter().map(|part| part.import.size())),
                ..Progress::default()
            },
            ..Job::accepted(
                id.clone(),
                common.project.clone(),
                user,
                JobType::ImportOvaImage,
                now,
            )
        };
        let accepted = NewDisksImport {
            job,
            parts,
            store: common.store.clone(),
            image_limit: common.limit,
            byte_limit: self.byte_limit(),
            concurrency: self.settings.limits.concurrent_imports,
        };
        let answer = keep.map(|keep| keep(&id));
        self.catalog.submit_disks(&accepted, answer).await?;
        Ok(id)
    }

    /// Gives an image of the caller's that is `queued` the bytes of an object, under the caller's key where one is given.
    ///
    /// # Errors
    /// IMG.0026; IMG.0027, 0083, 0047 for the image, IMG.0046 where it does not wait for bytes; IMG.0060; for the key and the object
    /// as [`Service::import`].
    pub async fn register(
        &self,
        call: &Call,
        id: ImageId,
        object: &ObjectAddress,
        key: Option<&str>,
        store: Option<&str>,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let allowed = self.authorize_within(call, Action::ImagesUpload)?;
        let store = self.chosen_store(store)?;
        let also = [Action::ImagesGet, Action::ImagesUpdate];
        let also = also.map(|action| self.authorize_within(call, action));
        let image = self.ims_owned_image(&allowed, id).await?;
        for also in also {
            also?.check_reaches(image.enterprise_project)?;
        }
        // Of the enterprise projects, the default one alone can permit it (spec 1, row 7).
        let confined = allowed.enterprise_projects().is_some();
        if confined && image.enterprise_project != EnterpriseProjectId::Default {
            return Err(Error::ims(ImsCode::IMG_0026));
        }
        if image.status != ImageStatus::Queued {
            return Err(Error::ims(ImsCode::IMG_0046));
        }
        let project = call.principal.require_project()?;
        let key = requested_key(key)?;
        if let Some(key) = &key {
            let user = self.key_user(call)?;
            self.check_key(&user, key, KeyRole::Target).await?;
        }
        self.check_room_to_import(project, None).await?;
        let (facts, format) = self.look_at(project, object, false).await?;
        if format == Format::Ova {
            return Err(Error::ims(ImsCode::IMG_0057));
        }
        self.check_room_for(&image.owner, facts.size).await?;
        let import = self.plan_import(call, object, facts, key.clone()).await?;
        let mut job = self.import_job(call, project, JobType::NativeImportImage, &import);
        job.image = Some(id);
        let image = ImportedImage::Queued {
            id,
            formats: [format.as_str(), "bare"],
        };
        let mut detail = serde_json::json!({
            "object": object.as_str(),
            "job_id": job.id.as_str(),
        });
        let keys = Keys {
            source: None,
            target: key,
        };
        keys.tell(&mut detail);
        let line = self.event(call, "uploadImage", id, detail);
        let accepted = self.new_import(job, image, import, store);
        self.submit_import(accepted, line, keep).await
    }

    async fn check_room_to_import(
        &self,
        project: &ProjectId,
        limit: Option<ImageLimit>,
    ) -> Result<()> {
        let concurrency = self.settings.limits.concurrent_imports;
        self.catalog
            .check_room(project, limit, JobFamily::Import, concurrency)
            .await
    }

    /// Whether the bytes have room now; the submission decides.
    async fn check_room_for(&self, project: &ProjectId, size: ByteSize) -> Result<()> {
        let limit = self.byte_limit();
        self.catalog.check_bytes(project, size, limit).await
    }

    /// The object as it is now, and the format that it is in.
    async fn look_at(
        &self,
        project: &ProjectId,
        object: &ObjectAddress,
        quick: bool,
    ) -> Result<(ObjectFacts, Format)> {
        self.settings.buckets.check(project, object)?;
        let facts = self.objects.look(object).await?;
        if facts.size == ByteSize::ZERO {
            return Err(Error::ims(ImsCode::IMG_0057));
        }
        let limits = &self.settings.limits;
        let usual = limits.max_import_size.filter(|_| !quick);
        let most = [usual, limits.max_image_size];
        if most.into_iter().flatten().any(|most| facts.size > most) {
            return Err(Error::ims(ImsCode::IMG_0059));
        }
        let format = format::of_object(self.objects.as_ref(), object, &facts).await?;
        Ok((facts, format))
    }

    /// What the job does, with the data key of the blob that it makes.
    async fn plan_import(
        &self,
        call: &Call,
        object: &ObjectAddress,
        facts: ObjectFacts,
        key: Option<KeyId>,
    ) -> Result<Import> {
        let target = BlobId::random(self.entropy.as_ref());
        let master = self.master_key(call, key.as_ref())?;
        Ok(Import {
            object: object.clone(),
            facts,
            part: None,
            target,
            target_key: self.new_data_key(target, &master).await?,
            target_cmk: key,
            filled: [false; 2],
        })
    }

    fn import_job(
        &self,
        call: &Call,
        project: &ProjectId,
        job_type: JobType,
        import: &Import,
    ) -> Job {
        let id = JobId::random(self.entropy.as_ref());
        let user = call.principal.user.id.clone();
        Job {
            progress: Progress {
                total: import.size(),
                ..Progress::default()
            },
            ..Job::accepted(id, project.clone(), user, job_type, self.clock.now())
        }
    }

    fn new_import(
        &self,
        job: Job,
        image: ImportedImage,
        import: Import,
        store: Option<StoreName>,
    ) -> NewImport {
        NewImport {
            job,
            image,
            import,
            store,
            byte_limit: self.byte_limit(),
            concurrency: self.settings.limits.concurrent_imports,
        }
    }

    async fn submit_import(
        &self,
        accepted: NewImport,
        line: AuditEvent,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let id = accepted.job.id.clone();
        let trail = Trail {
            event: line,
            answer: keep.map(|keep| keep(&id)),
        };
        self.catalog.submit_import(&accepted, trail).await?;
        Ok(id)
    }

    fn imported_image(&self, order: &ImportOrder, project: &ProjectId, format: Format) -> Image {
        Image {
            name: Some(order.name.as_str().to_owned()),
            visibility: Visibility::Private,
            disk_format: Some(format.as_str().to_owned()),
            container_format: Some("bare".to_owned()),
            min_disk: order.min_disk,
            min_ram: order.min_ram,
            properties: properties_of(order),
            ..self.blank_image(None, project.clone())
        }
    }
}

fn sum(sizes: impl Iterator<Item = ByteSize>) -> ByteSize {
    let sum = sizes.fold(0_u64, |sum, size| sum.saturating_add(size.bytes()));
    ByteSize::new(sum)
}
