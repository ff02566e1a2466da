//! The port to the metadata. Each method is one transaction: it happens wholly or not at all, is durable
//! when it returns, and is seen by every later call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::blobs::{BlobFacts, Place};
use super::directory::Directory;
use super::master_keys::{Page, Window};
use super::quotas::{ByteLimit, ImageLimit, MemberLimit, Quotas, Reservation};
use super::reconcile::Reconcile;
use crate::error::Result;
use crate::id::{BlobId, EnterpriseProjectId, ImageId, JobId, ProjectId, StoreName, UserId};
use crate::image::{Image, ListedImage, Member, MemberStatus, Visibility};
use crate::job::{
    Claim, Export, Heartbeat, Import, Job, JobFailure, JobFamily, JobStatus, MemberResult,
    MembersChange, MembersVerb, Progress, Release, Replication,
};
use crate::query::{ImageQuery, TagQuery};
use crate::size::ByteSize;
use crate::time::Timestamp;

/// Who did what to which thing: a line of the audit trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// The trace name (spec 10), such as `copyImage`.
    pub trace: String,
    /// The request that did it.
    pub request_id: String,
    /// The project it was done in.
    pub project: Option<ProjectId>,
    /// The user who did it.
    pub user: UserId,
    /// The kind of thing: `ims` for the extension API, `image` for the native one, `identity` for the identity's
    /// records, `kms` for master keys.
    pub resource_type: String,
    /// The thing's id.
    pub resource_id: String,
    /// More, as a JSON object: never a secret.
    pub detail: serde_json::Value,
}

/// The answer that an `Idempotency-Key` stands for (decision D18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// Whose key it is: user, project, method and path.
    pub scope: String,
    /// The key that the client chose.
    pub key: String,
    /// A digest of the request's body.
    pub fingerprint: String,
    /// The answer's status.
    pub status: u16,
    /// The answer's body.
    pub body: String,
    /// The answer's `Location`, if it had one.
    pub location: Option<String>,
    /// When it was given.
    pub created_at: Timestamp,
}

/// What is written in the same transaction as a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Trail {
    /// The audit trail's line.
    pub event: AuditEvent,
    /// The answer to keep, where the client sent an `Idempotency-Key`. A key that is taken makes the whole
    /// change fail with a Conflict.
    pub answer: Option<StoredAnswer>,
}

/// An image, and how the asking project is related to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenImage {
    /// The image.
    pub image: Image,
    /// The asking project's membership, where it has one.
    pub membership: Option<MemberStatus>,
}

/// A replication that was accepted: all that one transaction writes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReplica {
    /// The job, in state `INIT`.
    pub job: Job,
    /// The replica's row, in status `queued`, without a blob.
    pub image: Image,
    /// What it is made from. The job holds the source's blob until it ends.
    pub replication: Replication,
    /// The store for the blob that is made for it; none: the one that new blobs go to.
    pub store: Option<StoreName>,
    /// The most images that the project may have: over it, IMG.0015.
    pub image_limit: ImageLimit,
    /// The most bytes that the project may have: over it, IMG.0059.
    pub byte_limit: ByteLimit,
    /// The most unfinished replications that the project may have: over it, IMG.0060.
    pub concurrency: u64,
}

/// A job about members that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMembersJob {
    /// The job, in state `INIT`.
    pub job: Job,
    /// What it has to do.
    pub change: MembersChange,
    /// The most unfinished jobs about members that the project may have: over it, IMG.0060.
    pub concurrency: u64,
}

/// What a job does to the members of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct MembersStep {
    /// The image.
    pub image: ImageId,
    /// The version of it by which the refusals were decided; none where there is none that could be changed.
    pub version: Option<i64>,
    /// What becomes of the projects that were not refused.
    pub verb: MembersVerb,
    /// The projects, each with the refusal that was decided.
    pub pairs: Vec<MemberResult>,
    /// The most members that the image may have: who would come over it is refused with IMG.0088.
    pub limit: MemberLimit,
    /// The audit trail's line of each change; its detail is told what became whose.
    pub line: AuditEvent,
}

/// An import that was accepted: all that one transaction writes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewImport {
    /// The job, in state `INIT`.
    pub job: Job,
    /// The image that it is for.
    pub image: ImportedImage,
    /// What it is imported from.
    pub import: Import,
    /// The store for its bytes; none: the one that new blobs go to.
    pub store: Option<StoreName>,
    /// The most bytes that the image's project may have: over it, IMG.0059.
    pub byte_limit: ByteLimit,
    /// The most unfinished imports that the project may have: over it, IMG.0060.
    pub concurrency: u64,
}

/// An export that was accepted: all that one transaction writes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewExport {
    /// The job, in state `INIT`. Its source is the image.
    pub job: Job,
    /// What it has to do. The job holds the image's blob until it ends.
    pub export: Export,
    /// The most unfinished exports that the project may have: over it, IMG.0060.
    pub concurrency: u64,
}

/// A move of a blob to another store that was accepted: all that one transaction writes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMove {
    /// The job, in state `INIT`. It holds the blob until it ends.
    pub job: Job,
    /// The blob.
    pub blob: BlobId,
    /// Where it is to be.
    pub to: Place,
}

/// The image that an import is for.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportedImage {
    /// One that the import makes, in status `queued`, without a blob.
    New {
        /// Its row.
        image: Box<Image>,
        /// The most images that the project may have: over it, IMG.0015.
        limit: ImageLimit,
    },
    /// One that waits for its bytes.
    Queued {
        /// Its id.
        id: ImageId,
        /// What its formats are where it has none: of the disk, and of what wraps it.
        formats: [&'static str; 2],
    },
}

/// An import of several disks that was accepted: all that one transaction writes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDisksImport {
    /// The job that the others are parts of, in state `INIT`.
    pub job: Job,
    /// Its parts, of which there is at least one. Their ids ascend: that is the order in which they are shown.
    pub parts: Vec<ImportPart>,
    /// The store for their bytes; none: the one that new blobs go to.
    pub store: Option<StoreName>,
    /// The most images that the project may have: over it, IMG.0015.
    pub image_limit: ImageLimit,
    /// The most bytes that the project may have: over it, IMG.0059.
    pub byte_limit: ByteLimit,
    /// The most unfinished imports that the project may have, each with its parts one: over it, IMG.0060.
    pub concurrency: u64,
}

/// A disk of several that are imported together.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportPart {
    /// The job, in state `INIT`.
    pub job: Job,
    /// The image's row, in status `queued`, without a blob.
    pub image: Image,
    /// What it is imported from.
    pub import: Import,
    /// The audit trail's line.
    pub line: AuditEvent,
}

/// Images and their members.
#[async_trait::async_trait]
pub trait Images: Send + Sync {
    /// Writes a new image.
    ///
    /// # Errors
    /// IMG.0015 at the limit; Conflict where the id is or was ever in use.
    async fn insert_image(&self, image: &Image, limit: ImageLimit, trail: Trail) -> Result<()>;

    /// An image, with the membership of `project` in it. Does not judge who may see it.
    async fn image(&self, id: ImageId, project: Option<&ProjectId>) -> Result<Option<SeenImage>>;

    /// A page of images.
    ///
    /// # Errors
    /// NotFound where the marker is no image.
    async fn list_images(&self, query: &ImageQuery) -> Result<Vec<Arc<ListedImage>>>;

    /// The texts of the tags of the images that a query finds, sorted byte by byte, each once. The query's limit counts
    /// them.
    ///
    /// # Errors
    /// NotFound where the marker is no image.
    async fn tags_of_images(&self, query: &ImageQuery) -> Result<Vec<String>>;

    /// The texts of the tags of a project's images, sorted byte by byte, each once.
    async fn project_tags(&self, project: &ProjectId) -> Result<Vec<String>>;

    /// A part of the images that a query finds, newest first, and how many there are.
    async fn find_by_tags(&self, query: &TagQuery, window: Window) -> Result<Page<Image>>;

    /// Writes name, visibility, formats, `min_*`, protection, hiding, enterprise project, properties, tags
    /// and, between `active` and `deactivated`, the status of an image that was read before, and raises its
    /// version. Returns the image as it now is.
    ///
    /// # Errors
    /// Conflict where the image changed since it was read; NotFound where it is gone.
    async fn update_image(&self, image: &Image, trail: Trail) -> Result<Image>;

    /// Deletes an image that was read before; its id is never used again. Its blob becomes deletable after
    /// `grace` if nothing else refers to it.
    ///
    /// # Errors
    /// Conflict where the image changed since it was read, or where a job is making it; NotFound where it
    /// is gone.
    async fn delete_image(&self, image: &Image, grace: Duration, trail: Trail) -> Result<()>;

    /// Makes a project a member, `pending`. A member that is there already stays as it is. A private image is `shared`
    /// from then on.
    ///
    /// # Errors
    /// Conflict where the project is a member already; LimitReached (IMG.0088) at the limit.
    async fn add_member(&self, member: &Member, limit: MemberLimit, trail: Trail) -> Result<()>;

    /// Writes a member's answer and returns it; none where the project is no member.
    async fn set_member_status(
        &self,
        image: ImageId,
        project: &ProjectId,
        status: MemberStatus,
        trail: Trail,
    ) -> Result<Option<Member>>;

    /// Ends a membership. A shared image that has no members left becomes private where `emptied` says so, and stays as
    /// it is otherwise. False where the project is no member.
    async fn remove_member(
        &self,
        image: ImageId,
        project: &ProjectId,
        emptied: Visibility,
        trail: Trail,
    ) -> Result<bool>;

    /// The members of an image, by project.
    async fn members(&self, image: ImageId) -> Result<Vec<Member>>;

    /// Moves a `queued` image to `saving`, and records the blob that is being written for it, alive as
    /// long as its lease, with its first reservation. Returns the image as it now is (what it says of its bytes can't change
    /// any more), and how many bytes are reserved.
    ///
    /// # Errors
    /// Conflict where the image is not `queued`, or a job is making it; NotFound where it is gone; TooLarge (IMG.0059)
    /// where the project has no room.
    async fn begin_upload(
        &self,
        image: ImageId,
        blob: BlobId,
        lease: Duration,
        first: Reservation,
    ) -> Result<(Image, ByteSize)>;

    /// Has the bytes of an upload go to this store, and not to the one that all go to. It is begun, and nothing of it is
    /// written yet. False where it was ended by another.
    async fn place_upload(&self, blob: BlobId, store: &StoreName) -> Result<bool>;

    /// Extends an upload's lease. False where the upload was ended by another: its image was deleted, or
    /// its lease ran out.
    async fn extend_upload(&self, blob: BlobId, lease: Duration) -> Result<bool>;

    /// Moves the image to `active` with its bytes, and with the size of the disk that they describe where it
    /// is known.
    ///
    /// # Errors
    /// Gone where the image was deleted meanwhile; Conflict where the upload was ended by another; TooLarge (IMG.0059)
    /// where more came than was reserved, and the project has no room for it.
    async fn finish_upload(
        &self,
        image: ImageId,
        blob: BlobId,
        facts: &BlobFacts,
        virtual_size: Option<ByteSize>,
        limit: ByteLimit,
        trail: Trail,
    ) -> Result<Image>;

    /// Ends an upload without bytes: the image is `queued` again, the blob is garbage at once. False, and nothing
    /// changed, where the upload had ended: it may have ended well, so the bytes are not the caller's to remove.
    async fn abort_upload(&self, image: ImageId, blob: BlobId) -> Result<bool>;
}

/// Jobs. See the module [`crate::job`].
#[async_trait::async_trait]
pub trait Jobs: Send + Sync {
    /// Whether the project has room for one more image and, among `concurrency` unfinished ones of the family, for one
    /// more job now. Without a limit no image is asked for. It changes nothing: the submission decides.
    ///
    /// # Errors
    /// IMG.0015, IMG.0060.
    async fn check_room(
        &self,
        project: &ProjectId,
        image_limit: Option<ImageLimit>,
        family: JobFamily,
        concurrency: u64,
    ) -> Result<()>;

    /// Accepts a replication, and wakes a worker. The project pays for the replica's bytes from now on, or has them
    /// reserved where it gets a blob of its own.
    ///
    /// # Errors
    /// IMG.0015, IMG.0060; IMG.0144 where the source is gone or is no longer `active` with this blob;
    /// IMG.0155 where the enterprise project is unknown or disabled; IMG.0059 where the project has no room for the bytes.
    async fn submit_replica(&self, replica: &NewReplica, trail: Trail) -> Result<()>;

    /// Accepts a job about members, and wakes a worker.
    ///
    /// # Errors
    /// IMG.0060.
    async fn submit_members(&self, members: &NewMembersJob, trail: Trail) -> Result<()>;

    /// Accepts an import, and wakes a worker.
    ///
    /// # Errors
    /// IMG.0015, IMG.0060; IMG.0155 where the enterprise project is unknown or disabled; IMG.0027 where the image that is
    /// to be filled is gone, IMG.0046 where it does not wait for bytes.
    async fn submit_import(&self, import: &NewImport, trail: Trail) -> Result<()>;

    /// Accepts an import of several disks, and wakes workers. The job ends with the last of its parts: badly, with the code of
    /// the first that did, where one does; the images of the others stay.
    ///
    /// # Errors
    /// As [`Jobs::submit_import`].
    async fn submit_disks(
        &self,
        disks: &NewDisksImport,
        answer: Option<StoredAnswer>,
    ) -> Result<()>;

    /// Accepts an export, and wakes a worker.
    ///
    /// # Errors
    /// IMG.0060; IMG.0148 where the image is being exported already; IMG.0144 where it is gone or is no longer `active` with
    /// this blob.
    async fn submit_export(&self, export: &NewExport, trail: Trail) -> Result<()>;

    /// Accepts a move of a blob to another store, and wakes a worker.
    ///
    /// # Errors
    /// NotFound where there is no such blob, or none that is stored; Conflict where it is in the store already, or is being
    /// moved.
    async fn submit_move(&self, order: &NewMove, trail: Trail) -> Result<()>;

    /// Claims the next jobs that are due or whose lease ended, `most` of them or fewer, and moves their images to `saving`.
    /// Fair: each claim is of the project with the fewest running jobs, the earlier claims among them, and of its jobs the
    /// one that was due first. None where nothing is due; fewer than there are where others claim at the same time, or where
    /// the projects whose turn it is have no more.
    async fn pick_jobs(&self, worker: &str, lease: Duration, most: usize) -> Result<Vec<Claim>>;

    /// Writes progress, and extends the lease.
    async fn heartbeat(
        &self,
        job: &JobId,
        attempt: i64,
        progress: Progress,
        lease: Duration,
    ) -> Result<Heartbeat>;

    /// Ends a replication by sharing well: the replica is `active` with the blob that the job holds, and carries the
    /// source's size and digests. A job that was cancelled does not end well, however little was missing.
    async fn finish_share(&self, job: &JobId, attempt: i64) -> Result<Release>;

    /// Ends a replication by resealing well: the replica is `active` with its own blob, which is stored now. As
    /// [`Jobs::finish_share`] otherwise.
    async fn finish_reseal(&self, job: &JobId, attempt: i64, facts: &BlobFacts) -> Result<Release>;

    /// Does a step of a job about members, and adds what became of its pairs to the job's results: both or neither, so
    /// that a job that is gone on with does no step twice. A private image is `shared` from its first member on, and
    /// has none of those whom it was shared with before; one that loses its last member is private.
    ///
    /// # Errors
    /// Conflict where the image is not any more as it was when the step was decided.
    async fn change_members(
        &self,
        job: &JobId,
        attempt: i64,
        step: &MembersStep,
    ) -> Result<Release>;

    /// Ends well a job that leaves nothing but what its steps have done. As [`Jobs::finish_share`] otherwise.
    async fn finish_steps(&self, job: &JobId, attempt: i64) -> Result<Release>;

    /// Ends an import well: the image is `active` with the blob that the job made, and with the size of the disk that it
    /// describes where that is known. As [`Jobs::finish_share`] otherwise.
    async fn finish_import(
        &self,
        job: &JobId,
        attempt: i64,
        facts: &BlobFacts,
        virtual_size: Option<ByteSize>,
    ) -> Result<Release>;

    /// Ends a move well: the blob is where it was moved to, and what it has left behind is kept for `grace`, for those who
    /// read it there. As [`Jobs::finish_share`] otherwise.
    async fn finish_move(&self, job: &JobId, attempt: i64, grace: Duration) -> Result<Release>;

    /// Ends a job badly: an image that waited for bytes waits for them again. The row of an image that it was making is
    /// removed and its id never used again. False where another
    /// attempt has the job: nothing was written.
    async fn fail_job(&self, job: &JobId, attempt: i64, failure: &JobFailure) -> Result<bool>;

    /// Gives a job back, due after `delay`: at shutdown, or to be tried again. One that was cancelled is not given
    /// back.
    async fn hand_back(&self, job: &JobId, attempt: i64, delay: Duration) -> Result<Release>;

    /// Asks for a job's end. One that no worker has ends at once, as [`Jobs::fail_job`] does it; another when its
    /// worker hears of it, which is before it lets go of the job. With a job go its parts. Nothing where there is no such job of
    /// the project, if one is given.
    ///
    /// # Errors
    /// Conflict where the job has ended.
    async fn cancel_job(
        &self,
        id: &JobId,
        project: Option<&ProjectId>,
        failure: &JobFailure,
        trail: Trail,
    ) -> Result<Option<Job>>;

    /// A job.
    async fn job(&self, id: &JobId) -> Result<Option<Job>>;

    /// The jobs that are parts of this one, oldest first.
    async fn sub_jobs(&self, parent: &JobId) -> Result<Vec<Job>>;

    /// A project's jobs, newest first, those after `after`, with this status where one is given. Parts of others are
    /// not among them, and no job's results are told.
    async fn list_jobs(
        &self,
        project: &ProjectId,
        status: Option<JobStatus>,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<Job>>;

    /// How many jobs are in each unfinished state: `INIT`, `RUNNING`. Parts of others are not counted.
    async fn unfinished_jobs(&self) -> Result<(u64, u64)>;

    /// Rung when a job may have become due, here or (on PostgreSQL) on another node. A hint: the truth is a
    /// poll.
    fn bell(&self) -> &Notify;
}

/// The audit trail, kept answers, and enterprise projects.
#[async_trait::async_trait]
pub trait Ledger: Send + Sync {
    /// The newest lines of the audit trail before `before`, of one project where one is given.
    async fn audit_trail(
        &self,
        project: Option<&ProjectId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, AuditEvent)>>;

    /// The answer kept under an idempotency key.
    async fn answer(&self, scope: &str, key: &str) -> Result<Option<StoredAnswer>>;

    /// Makes an enterprise project, and writes its trail with it.
    ///
    /// # Errors
    /// Conflict where the name is taken, or the idempotency key.
    async fn insert_enterprise_project(
        &self,
        project: &EnterpriseProject,
        trail: Trail,
    ) -> Result<()>;

    /// The enterprise projects, by name.
    async fn enterprise_projects(&self) -> Result<Vec<EnterpriseProject>>;

    /// An enterprise project. The default one is always there and enabled.
    async fn enterprise_project(
        &self,
        id: EnterpriseProjectId,
    ) -> Result<Option<EnterpriseProject>>;

    /// Enables or disables an enterprise project, and writes the audit trail's line with it. False, and no line,
    /// where there is none.
    async fn set_enterprise_project_enabled(
        &self,
        id: EnterpriseProjectId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool>;
}

/// An enterprise project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnterpriseProject {
    /// Its id.
    pub id: EnterpriseProjectId,
    /// Its name.
    pub name: String,
    /// Whether images may be put into it.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The whole catalog.
pub trait Catalog: Images + Jobs + Ledger + Quotas + Reconcile + Directory {}

impl<T: Images + Jobs + Ledger + Quotas + Reconcile + Directory> Catalog for T {}
