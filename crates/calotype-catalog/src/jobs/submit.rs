//! Accepting jobs: each in one transaction with what it is about.

use calotype_core::codes::ImsCode;
use calotype_core::id::{EnterpriseProjectId, ImageId, KeyId, ProjectId, StoreName};
use calotype_core::image::ImageStatus;
use calotype_core::job::{Job, JobFamily, JobType, ReplicaBytes, Work};
use calotype_core::ports::{
    ImportedImage, NewDisksImport, NewExport, NewImport, NewReplica, Reservation, StoredAnswer,
    Trail,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::db::{Arg, Tx};
use crate::ledger::insert_event;
use crate::rows::{
    insert_answer, insert_image_row, is_being_made, lock_image, one, placeholders, size_arg,
    write_trail,
};
use crate::usage::{Account, holds};

/// A blob that a job is to make.
pub(super) struct NewBlob<'a> {
    /// For whom its bytes are reserved, and how many.
    project: &'a ProjectId,
    reserved: ByteSize,
    /// Where it is to be; none: where new blobs go.
    store: Option<&'a StoreName>,
}

impl SqlCatalog {
    pub(super) async fn submit_replica_once(
        &self,
        replica: &NewReplica,
        trail: &Trail,
    ) -> Result<()> {
        let NewReplica { job, image, .. } = replica;
        let mut tx = self.db.write().await?;
        let mut account = Account::open(&mut tx, &image.owner).await?;
        account.add_image(replica.image_limit)?;
        let family = job.job_type.family();
        check_concurrency(&mut tx, &job.project, family, replica.concurrency).await?;
        // The lock keeps the source until the job holds its blob: a deletion waits and then sees the job.
        let sql = "select size from images where id = $1 and status = 'active' and blob = $2";
        let blob = replica.replication.source;
        let args = vec![Arg::opt_text(job.source), Arg::text(blob)];
        let Some(source) = tx.fetch_locked(sql, "for share", args).await? else {
            return Err(Error::ims(ImsCode::IMG_0144));
        };
        let size = ByteSize::new(source.count("size")?);
        check_enterprise_project(&mut tx, image.enterprise_project).await?;
        let reserved = match &replica.replication.bytes {
            ReplicaBytes::Share { .. } => {
                let first = !holds(&mut tx, &image.owner, blob, None).await?;
                account.add_hold(size, first, Some(replica.byte_limit))?;
                ByteSize::ZERO
            }
            ReplicaBytes::Reseal(_) => account.reserve(Reservation {
                needed: size,
                wanted: size,
                limit: replica.byte_limit,
            })?,
        };
        account.save(&mut tx).await?;
        insert_image_row(&mut tx, image).await?;
        let work = Work::Replicate(replica.replication.clone());
        let blob = NewBlob {
            project: &image.owner,
            reserved,
            store: replica.store.as_ref(),
        };
        self.insert_job(&mut tx, job, &work, Some(blob)).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        self.commit_and_ring(tx).await
    }

    pub(super) async fn submit_import_once(&self, import: &NewImport, trail: &Trail) -> Result<()> {
        let job = &import.job;
        let mut tx = self.db.write().await?;
        let owner = match &import.image {
            ImportedImage::New { image, .. } => image.owner.clone(),
            ImportedImage::Queued { id, .. } => owner_of(&mut tx, *id).await?,
        };
        let mut account = Account::open(&mut tx, &owner).await?;
        if let ImportedImage::New { limit, .. } = &import.image {
            account.add_image(*limit)?;
        }
        let size = import.import.facts.size;
        let reserved = account.reserve(Reservation {
            needed: size,
            wanted: size,
            limit: import.byte_limit,
        })?;
        account.save(&mut tx).await?;
        let family = job.job_type.family();
        check_concurrency(&mut tx, &job.project, family, import.concurrency).await?;
        let mut order = import.import.clone();
        match &import.image {
            ImportedImage::New { image, .. } => {
                check_enterprise_project(&mut tx, image.enterprise_project).await?;
                insert_image_row(&mut tx, image).await?;
            }
            ImportedImage::Queued { id, formats } => {
                let key = order.target_cmk.as_ref();
                order.filled = wait_for_job(&mut tx, *id, formats, key, trail).await?;
            }
        }
        let work = Work::Import(order);
        let blob = NewBlob {
            project: &owner,
            reserved,
            store: import.store.as_ref(),
        };
        self.insert_job(&mut tx, job, &work, Some(blob)).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        self.commit_and_ring(tx).await
    }
}

impl SqlCatalog {
    pub(super) async fn submit_disks_once(
        &self,
        disks: &NewDisksImport,
        answer: Option<&StoredAnswer>,
    ) -> Result<()> {
        let whole = &disks.job;
        let mut tx = self.db.write().await?;
        let mut account = Account::open(&mut tx, &whole.project).await?;
        for part in &disks.parts {
            account.add_image(disks.image_limit)?;
            let size = part.import.size();
            account.reserve(Reservation {
                needed: size,
                wanted: size,
                limit: disks.byte_limit,
            })?;
        }
        account.save(&mut tx).await?;
        let family = whole.job_type.family();
        check_concurrency(&mut tx, &whole.project, family, disks.concurrency).await?;
        self.insert_job(&mut tx, whole, &Work::Parts, None).await?;
        for part in &disks.parts {
            check_enterprise_project(&mut tx, part.image.enterprise_project).await?;
            insert_image_row(&mut tx, &part.image).await?;
            let work = Work::Import(part.import.clone());
            let blob = NewBlob {
                project: &whole.project,
                reserved: part.import.size(),
                store: disks.store.as_ref(),
            };
            self.insert_job(&mut tx, &part.job, &work, Some(blob))
                .await?;
            insert_event(&mut tx, &part.line).await?;
        }
        if let Some(answer) = answer {
            insert_answer(&mut tx, answer, self.options.answers_kept).await?;
        }
        self.commit_and_ring(tx).await
    }

    pub(super) async fn submit_export_once(&self, export: &NewExport, trail: &Trail) -> Result<()> {
        let job = &export.job;
        let gone = || Error::ims(ImsCode::IMG_0144);
        let id = job.source.ok_or_else(gone)?;
        let mut tx = self.db.write().await?;
        // Of many that ask at once, each counts those before it.
        Account::open(&mut tx, &job.project).await?;
        let family = job.job_type.family();
        check_concurrency(&mut tx, &job.project, family, export.concurrency).await?;
        // The lock keeps the image until the job holds its blob, and a second export waits for it.
        let image = lock_image(&mut tx, id).await?.ok_or_else(gone)?;
        if image.status != ImageStatus::Active || image.blob != Some(export.export.source) {
            return Err(gone());
        }
        let sql = "select id from jobs where source_image = $1 and job_type = $2 \
                   and ended_at is null";
        let args = vec![Arg::text(id), Arg::text(job.job_type)];
        if tx.fetch_optional(sql, args).await?.is_some() {
            return Err(Error::ims(ImsCode::IMG_0148));
        }
        let work = Work::Export(export.export.clone());
        self.insert_job(&mut tx, job, &work, None).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        self.commit_and_ring(tx).await
    }
}

/// The owner of an image, which never changes.
///
/// # Errors
/// IMG.0027.
async fn owner_of(tx: &mut Tx, id: ImageId) -> Result<ProjectId> {
    let sql = "select owner from images where id = $1";
    let row = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
    let row = row.ok_or_else(|| Error::ims(ImsCode::IMG_0027))?;
    row.parsed("owner")
}

/// Locks an image that waits for bytes, so that from here on it waits for those of the job alone, and gives it the key that
/// they are sealed under and the formats that it lacks. Which ones these were is returned.
///
/// # Errors
/// IMG.0027, IMG.0046.
async fn wait_for_job(
    tx: &mut Tx,
    id: ImageId,
    formats: &[&str; 2],
    key: Option<&KeyId>,
    trail: &Trail,
) -> Result<[bool; 2]> {
    let Some(row) = lock_image(tx, id).await? else {
        return Err(Error::ims(ImsCode::IMG_0027));
    };
    if row.status != ImageStatus::Queued || is_being_made(tx, id).await? {
        return Err(Error::ims(ImsCode::IMG_0046));
    }
    let sql = "select disk_format, container_format from images where id = $1";
    let found = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
    let found = found.ok_or_else(|| Error::internal("a locked image is gone"))?;
    let filled = [
        found.opt_text("disk_format")?.is_none(),
        found.opt_text("container_format")?.is_none(),
    ];
    let sql = "update images set disk_format = coalesce(disk_format, $2), \
               container_format = coalesce(container_format, $3), \
               cmk_id = coalesce($5, cmk_id), updated_at = $4, version = version + 1 where id = $1";
    let [disk, container] = formats;
    let args = vec![
        Arg::text(id),
        Arg::text(disk),
        Arg::text(container),
        Arg::time(trail.event.at),
        Arg::opt_text(key),
    ];
    one(tx.execute(sql, args).await?, "a locked image is gone")?;
    Ok(filled)
}

/// Checks that images may be put into an enterprise project, and keeps it so.
///
/// # Errors
/// IMG.0155.
async fn check_enterprise_project(tx: &mut Tx, id: EnterpriseProjectId) -> Result<()> {
    let sql = "select enabled from enterprise_projects where id = $1";
    let row = tx
        .fetch_locked(sql, "for share", vec![Arg::text(id)])
        .await?;
    if row.map_or(Ok(false), |row| row.bool("enabled"))? {
        return Ok(());
    }
    Err(Error::ims(ImsCode::IMG_0155))
}

impl SqlCatalog {
    /// Writes a job that is due at once, or never where its parts do what there is to do, and the row of the blob that it is to
    /// make.
    pub(super) async fn insert_job(
        &self,
        tx: &mut Tx,
        job: &Job,
        work: &Work,
        blob: Option<NewBlob<'_>>,
    ) -> Result<()> {
        let target = work.target_blob();
        if let Some(target) = target {
            let sql = "insert into blobs (id, state, reserved_for, reserved, store) \
                   values ($1, 'writing', $2, $3, $4)";
            let blob = blob.ok_or_else(|| Error::internal("a job makes a blob for nobody"))?;
            let args = vec![
                Arg::text(target),
                Arg::text(blob.project),
                size_arg(Some(blob.reserved))?,
                Arg::text(blob.store.unwrap_or(&self.options.new_blobs)),
            ];
            tx.execute(sql, args).await?;
        }
        let due = match work {
            Work::Parts => Timestamp::from_micros(i64::MAX),
            _ => tx.now().await?,
        };
        let sql = "insert into jobs (id, project, user_id, job_type, status, source_image, image_id, \
               image_name, blob, done_bytes, total_bytes, attempt, due_at, cancelled, created_at, \
               work, target_blob, parent) \
               values ($1, $2, $3, $4, 'INIT', $5, $6, $7, $8, $9, $10, 0, $11, $12, $13, $14, $15, $16)";
        let args = vec![
            Arg::text(&job.id),
            Arg::text(&job.project),
            Arg::text(&job.user),
            Arg::text(job.job_type),
            Arg::opt_text(job.source),
            Arg::opt_text(job.image),
            Arg::opt_text(job.image_name.as_ref()),
            Arg::opt_text(work.source_blob()),
            size_arg(Some(job.progress.done))?,
            size_arg(Some(job.progress.total))?,
            Arg::time(due),
            false.into(),
            Arg::time(job.created_at),
            Arg::text(serde_json::to_string(work).map_err(Error::internal)?),
            Arg::opt_text(target),
            Arg::opt_text(job.parent.as_ref()),
        ];
        tx.execute(sql, args).await.map(drop)
    }
}

/// Whether the project has room for one more unfinished job of the family. Parts count with what they are parts of.
///
/// # Errors
/// IMG.0060.
pub(super) async fn check_concurrency(
    tx: &mut Tx,
    project: &ProjectId,
    family: JobFamily,
    concurrency: u64,
) -> Result<()> {
    let mut args = vec![Arg::text(project)];
    let types = JobType::ALL.iter();
    args.extend(
        types
            .filter(|job_type| job_type.family() == family)
            .map(Arg::text),
    );
    let types = placeholders(2, args.len() - 1);
    args.push(i64::try_from(concurrency).unwrap_or(i64::MAX).into());
    // No more of them are looked at than matter.
    let sql = format!(
        "select count(*) as unfinished from (select 1 from jobs where project = $1 \
         and ended_at is null and parent is null and job_type in ({types}) limit ${}) u",
        args.len()
    );
    let row = tx.fetch_optional(sql, args).await?;
    if row.map_or(Ok(0), |row| row.count("unfinished"))? >= concurrency {
        return Err(Error::ims(ImsCode::IMG_0060));
    }
    Ok(())
}
