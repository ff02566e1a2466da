//! Objects from images (spec 2.8).
//!
//! What can be known at once is checked before the caller has its answer, also that there is no such object yet. The job holds the
//! image's blob, so the image may go meanwhile. What is stored in the wanted format is written as it is; what is not, once it was
//! looked at ([`Verified`]), is converted first.
//!
//! # Consistency
//! That an image is exported once at a time, and how many exports a project has, is decided in the transaction that writes the
//! job. That no object is replaced is decided by the bucket, when the object is made; one in S3 that comes in the last moment may be.
//!
//! # Crash consistency
//! Nothing is to be seen of an object before it is whole. A new attempt begins at the beginning. Where one died between the making
//! of the object and the end of the job, the object tells which job made it, and the next attempt ends the job with it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt as _;

use super::replicate::{Keys, Strictness};
use super::{Call, Keep, Service};
use crate::access::Action;
use crate::codes::ImsCode;
use crate::disk::DiskFormat;
use crate::error::{Error, Result};
use crate::id::{ImageId, JobId, ProjectId};
use crate::image::{Image, ImageStatus, Visibility};
use crate::inspect::Verified;
use crate::job::{Claim, Export, Job, JobFamily, JobType, Progress};
use crate::keys::{Authority, KeyRole, KeyUser};
use crate::object::ObjectAddress;
use crate::ports::{BlobReader, Conversion, NewExport, ObjectFacts, ResealProgress, Trail};

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct ExportOrder {
    /// The image.
    pub image: ImageId,
    /// The object, which is not there yet.
    pub object: ObjectAddress,
    /// The format that it is to be in.
    pub format: DiskFormat,
    /// Whether it is a quick export, which takes larger images and converts none.
    pub quick: bool,
    /// Which permissions the image's key takes.
    pub strictness: Strictness,
}

impl Service {
    /// Accepts an export and returns its job's id.
    ///
    /// # Errors
    /// IMG.0026; for the image IMG.0027, 0077, 0047, 0128, 0080, 0079, 0167, 0046, 0057, 0071, 0072, 0160, 0059; for its key 0101
    /// to 0103, 0187; IMG.0060 and 0148; for the object IMG.0069, 0058, 0070. A refusal changes nothing.
    pub async fn export(
        &self,
        call: &Call,
        order: &ExportOrder,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let allowed = self.authorize_within(call, Action::ImagesExport)?;
        let project = call.principal.require_project()?;
        let image = self.seen_image(&allowed, order.image).await?.image;
        check_relation(&image, project, allowed.in_all_projects())?;
        check_kind_and_state(&image)?;
        if order.quick && image.cmk_id.is_some() {
            return Err(Error::ims(ImsCode::IMG_0071));
        }
        let stored = stored_format(&image)?;
        check_formats(stored, order)?;
        self.check_size(&image, stored, order)?;
        if let Some(key) = &image.cmk_id {
            let permitted = self.access.permits(&call.principal, Action::DataKeysOpen);
            if order.strictness == Strictness::Caller && !permitted {
                return Err(Error::ims(ImsCode::IMG_0103));
            }
            let user = self.key_user(call)?;
            self.check_key(&user, key, KeyRole::Source).await?;
        }
        let source = image.blob.ok_or_else(|| Error::ims(ImsCode::IMG_0046))?;
        let concurrency = self.settings.limits.concurrent_exports;
        self.catalog
            .check_room(project, None, JobFamily::Export, concurrency)
            .await?;
        self.check_free(project, &order.object).await?;

        let id = JobId::random(self.entropy.as_ref());
        let user = call.principal.user.id.clone();
        let now = self.clock.now();
        let job_type = JobType::NativeExportImage;
        let job = Job {
            source: Some(image.id),
            progress: Progress {
                total: image.size.unwrap_or_default(),
                ..Progress::default()
            },
            ..Job::accepted(id.clone(), project.clone(), user, job_type, now)
        };
        let mut detail = serde_json::json!({
            "job_id": id.as_str(),
            "object": order.object.as_str(),
            "file_format": order.format.as_str(),
        });
        let keys = Keys {
            source: image.cmk_id.clone(),
            target: None,
        };
        keys.tell(&mut detail);
        let trail = Trail {
            event: self.event(call, "exportImage", image.id, detail),
            answer: keep.map(|keep| keep(&id)),
        };
        let accepted = NewExport {
            job,
            export: Export {
                source,
                source_key: image.wrapped_key,
                source_cmk: image.cmk_id,
                stored,
                wanted: order.format,
                object: order.object.clone(),
            },
            concurrency,
        };
        self.catalog.submit_export(&accepted, trail).await?;
        Ok(id)
    }

    fn check_size(&self, image: &Image, stored: DiskFormat, order: &ExportOrder) -> Result<()> {
        let size = match stored == order.format {
            true => image.size,
            // What is converted is the disk, which may be larger than what is stored of it.
            false => image.size.max(image.virtual_size),
        };
        let size = size.unwrap_or_default();
        let limits = &self.settings.limits;
        if limits.max_quick_export_size.is_some_and(|end| size >= end) {
            return Err(Error::ims(ImsCode::IMG_0059));
        }
        let most = limits.max_export_size.filter(|_| !order.quick);
        match most {
            Some(most) if size > most => Err(Error::ims(ImsCode::IMG_0160)),
            _ => Ok(()),
        }
    }

    /// Whether there is a bucket that the project may use, and no such object in it now; the bucket decides when the
    /// object is made.
    async fn check_free(&self, project: &ProjectId, object: &ObjectAddress) -> Result<()> {
        self.settings.buckets.check(project, object)?;
        match self.objects.look(object).await {
            Ok(_) => Err(Error::ims(ImsCode::IMG_0070)),
            Err(error) if error.code() == Some(ImsCode::IMG_0057) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The worker's part: makes the object.
    pub(super) async fn write_object(
        &self,
        claim: &Claim,
        export: &Export,
        progress: &Arc<ResealProgress>,
    ) -> Result<ObjectFacts> {
        let user = KeyUser {
            project: claim.job.project.clone(),
            user: claim.job.user.clone(),
            authority: Authority::Job,
        };
        let key = export.source_cmk.as_ref();
        if let Some(key) = key {
            self.check_key(&user, key, KeyRole::Source).await?;
        }
        let job = &claim.job.id;
        let at = &export.object;
        // The operator may have closed it since the export was accepted.
        self.settings.buckets.check(&claim.job.project, at)?;
        if claim.attempt > 1
            && let Some(made) = self.made_by(at, job).await?
        {
            return Ok(made);
        }
        // An object may have come.
        self.check_free(&claim.job.project, at).await?;
        let written = tokio::select! {
            biased;
            written = self.write_unchecked(job, export, progress) => written,
            refused = self.keep_checking_key(&user, key, KeyRole::Source) => Err(refused),
        };
        match self.watch_for_damage(written).await {
            // Another attempt, which took this one for dead or was taken for it, may have been first; or the bucket's
            // answer was lost, and a second request was about what was done.
            Err(error) if matches!(error.code(), Some(ImsCode::IMG_0070 | ImsCode::IMG_0057)) => {
                self.made_by(at, job).await?.ok_or(error)
            }
            written => written,
        }
    }

    /// Removes the object that a job made which has failed, if it made one.
    pub(super) async fn remove_made(&self, job: &JobId, export: &Export) {
        let removed = match self.made_by(&export.object, job).await {
            Ok(Some(made)) => self.objects.remove(&export.object, &made).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(job.id = %job, error.chain = %error.chain(), "an object of a failed export may be left");
        }
    }

    /// The object, if this job made it.
    async fn made_by(&self, at: &ObjectAddress, job: &JobId) -> Result<Option<ObjectFacts>> {
        match self.objects.made_by(at, job).await {
            Err(error) if error.code() == Some(ImsCode::IMG_0057) => Ok(None),
            made => made,
        }
    }

    async fn write_unchecked(
        &self,
        job: &JobId,
        export: &Export,
        progress: &Arc<ResealProgress>,
    ) -> Result<ObjectFacts> {
        let opened = self
            .blobs
            .open(export.source, export.source_key.as_ref())
            .await;
        let reader = opened.map_err(|fault| fault.into_error(KeyRole::Source))?;
        if export.stored == export.wanted {
            return self.write_as_it_is(job, export, reader, progress).await;
        }
        let file = self.converted(export, reader, progress).await?;
        self.objects.put(&export.object, file, Some(job)).await
    }

    async fn write_as_it_is(
        &self,
        job: &JobId,
        export: &Export,
        reader: Arc<dyn BlobReader>,
        progress: &ResealProgress,
    ) -> Result<ObjectFacts> {
        let size = reader.facts().size;
        let at = &export.object;
        let mut writer = self.objects.create(at, size, Some(job)).await?;
        let mut pieces = reader.read(0..size.bytes());
        while let Some(piece) = pieces.try_next().await? {
            let length = piece.len() as u64;
            writer.append(piece).await?;
            progress.done.fetch_add(length, Ordering::Relaxed);
        }
        writer.finish().await
    }

    async fn converted(
        &self,
        export: &Export,
        reader: Arc<dyn BlobReader>,
        progress: &Arc<ResealProgress>,
    ) -> Result<Arc<File>> {
        // What was stored before there was an inspection, or by other rules, is judged by today's.
        let verified = Verified::inspect(reader, export.stored).await;
        let verified = verified.map_err(|error| match error.code() {
            None if !error.is_transient() => error.with_code(ImsCode::IMG_0071),
            _ => error,
        })?;
        let most = self.settings.limits.max_export_size;
        if most.is_some_and(|most| verified.disk().is_some_and(|disk| disk > most)) {
            return Err(Error::ims(ImsCode::IMG_0160));
        }
        let wanted = Conversion {
            format: export.wanted,
            name: export.object.file_name().to_owned(),
            progress: Arc::clone(progress),
        };
        self.converter.convert(verified, wanted).await
    }
}

/// How the caller is related to the image: it is its own.
fn check_relation(image: &Image, project: &ProjectId, all_projects: bool) -> Result<()> {
    let own = image.owner == *project || all_projects;
    match image.visibility {
        Visibility::Public => Err(Error::ims(ImsCode::IMG_0077)),
        Visibility::Community if !own => Err(Error::ims(ImsCode::IMG_0077)),
        _ if !own => Err(Error::ims(ImsCode::IMG_0047)),
        _ => Ok(()),
    }
}

/// What the image is, before how it is, so that a caller learns the lasting reason first.
fn check_kind_and_state(image: &Image) -> Result<()> {
    let has = |name: &str| image.property(name).is_some_and(|value| !value.is_empty());
    if image.is_whole() {
        return Err(Error::ims(ImsCode::IMG_0128));
    }
    if has("__backup_id") {
        return Err(Error::ims(ImsCode::IMG_0080));
    }
    // The one mark of a charged image that an image made from it keeps (spec 3.6).
    if has("__productcode") {
        return Err(Error::ims(ImsCode::IMG_0079));
    }
    if image.is_iso() {
        return Err(Error::ims(ImsCode::IMG_0167));
    }
    if image.status != ImageStatus::Active {
        return Err(Error::ims(ImsCode::IMG_0046));
    }
    if image.damaged_at.is_some() {
        return Err(Error::ims(ImsCode::IMG_0057));
    }
    Ok(())
}

/// The format that an image's disk is stored in.
fn stored_format(image: &Image) -> Result<DiskFormat> {
    let no_disk = || {
        let error = Error::invalid("The image can't be exported: it is no bare disk.");
        error.with_code(ImsCode::IMG_0071)
    };
    if image.container_format.as_deref() != Some("bare") {
        return Err(no_disk());
    }
    let format = image.disk_format.as_deref().unwrap_or_default();
    format.parse().map_err(|_| no_disk())
}

/// Whether what is stored can be written as what is wanted.
fn check_formats(stored: DiskFormat, order: &ExportOrder) -> Result<()> {
    if stored == order.format {
        return Ok(());
    }
    let closed = [stored, order.format]
        .into_iter()
        .find(|format| !format.is_public());
    match closed {
        None => Ok(()),
        Some(format) => Err(Error::invalid(format!(
            "The image is stored as {stored}: it can't be exported as {}. The format {format} has no public description, so \
             that nothing is converted from it or to it.",
            order.format
        ))
        .with_code(ImsCode::IMG_0072)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(format: DiskFormat) -> ExportOrder {
        ExportOrder {
            image: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
            object: ObjectAddress::parse("images:a").unwrap(),
            format,
            quick: false,
            strictness: Strictness::KeyService,
        }
    }

    #[test]
    fn formats_without_a_description_are_written_only_as_they_are() {
        for stored in DiskFormat::ALL {
            for wanted in DiskFormat::ALL {
                let judged = check_formats(*stored, &order(*wanted));
                let fine = stored == wanted || (stored.is_public() && wanted.is_public());
                assert_eq!(judged.is_ok(), fine, "{stored} as {wanted}");
                if let Err(error) = judged {
                    assert_eq!(error.code(), Some(ImsCode::IMG_0072));
                    assert!(error.message().contains("zvhd"), "{error}");
                }
            }
        }
    }
}
