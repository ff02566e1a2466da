//! The use cases: one method for each thing that a caller can ask of the service.
//!
//! A method parses nothing and renders nothing. It checks permission first, then the request against the
//! records, and then makes its change in one transaction of the catalog.

mod cancel;
mod export;
mod images;
mod import;
mod ims_patch;
mod ims_tags;
mod lease;
mod members;
mod members_job;
mod os_version;
mod patch;
mod quotas;
mod reconcile;
mod replicate;
mod reseal;
mod reserved;
mod scrub;
mod sources;
mod stores;
mod transfer;
mod verify;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::access::{Access, Action, Allowed, Principal};
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{ImageId, JobId};
use crate::image::{Image, Visibility};
use crate::job::{Job, JobStatus};
use crate::keys::{Authority, CallerToken, KeyUser};
use crate::object::BucketAccess;
use crate::ports::{
    AuditEvent, Blobs, Catalog, Clock, ComputeSource, Converter, DigestChoice, EnterpriseProject,
    Entropy, KeyService, Objects, Projects, SeenImage, SharedBlobs, StoredAnswer, Trail,
};
use crate::query::Viewer;
use crate::size::ByteSize;
use crate::time::Timestamp;

pub use export::ExportOrder;
pub use images::NewImage;
pub use import::{DataDisk, Firmware, ImportKind, ImportOrder, OsType};
pub use ims_patch::check_patchable;
pub use members_job::{MOST_MEMBER_PAIRS, MembersOrder};
pub use os_version::{OsVersion, catalogue as os_versions};
pub use patch::{Change, Setting, check_settable};
pub use quotas::{LimitInForce, Quota};
pub use reconcile::{Reconciled, Reconciler};
pub use replicate::{ElsewhereOrder, EncryptionMode, ReplicaOrder, Strictness};
pub use scrub::{ScrubOptions, Scrubbed, Scrubber};
pub use sources::{Source, SourceImage, SourceOrder};
pub use stores::{StoreDetail, StoreEntry, StoreList};
pub use transfer::{Download, Upload};
pub use verify::Verification;
pub use worker::{Worker, WorkerOptions};

/// What an operator sets; see the configuration's documentation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region that the deployment calls itself.
    pub region: String,
    /// Whose habits apply where Glance and OTC differ.
    pub profile: Profile,
    /// Limits.
    pub limits: Limits,
    /// The digests that an upload computes.
    pub digests: DigestChoice,
    /// How long an unreferenced blob is kept.
    pub deletion_grace: Duration,
    /// How long an upload is believed alive without a sign of life.
    pub upload_lease: Duration,
    /// Whether public images may be replicated (decision D8).
    pub replicate_public: bool,
    /// Whether an encrypted image that is shared with a project may be replicated by it (decision D7).
    pub replicate_shared_encrypted: bool,
    /// Whether a replica may share its source's bytes under another key.
    pub allow_rewrap: bool,
    /// Which projects may use which buckets.
    pub buckets: BucketAccess,
    /// The stores of blobs.
    pub stores: StoreList,
    /// How often stored bytes are read again.
    pub scrub: ScrubOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "calotype".to_owned(),
            profile: Profile::default(),
            limits: Limits::default(),
            digests: DigestChoice::default(),
            deletion_grace: Duration::from_secs(600),
            upload_lease: Duration::from_secs(30),
            replicate_public: false,
            replicate_shared_encrypted: true,
            allow_rewrap: false,
            buckets: BucketAccess::default(),
            stores: StoreList::default(),
            scrub: ScrubOptions::default(),
        }
    }
}

/// Whose habits apply where Glance and OTC differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Glance's: an image without formats keeps none, and refuses bytes.
    #[default]
    Calotype,
    /// OTC's: an image without formats gets `zvhd2` and `bare` when it is made.
    Otc,
}

/// Limits (decision D14). A project may have its own images, members and bytes instead.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Images that a project may have.
    pub images_per_project: u64,
    /// Unfinished replications that a project may have.
    pub concurrent_replicas: u64,
    /// Unfinished jobs about members that a project may have.
    pub concurrent_member_jobs: u64,
    /// Unfinished imports that a project may have (spec 10).
    pub concurrent_imports: u64,
    /// Unfinished exports that a project may have.
    pub concurrent_exports: u64,
    /// Tags that an image may have through the native API (Glance's default).
    pub tags_per_image: usize,
    /// Tags that an image may have through the IMS API (spec 6.1).
    pub ims_tags_per_image: usize,
    /// Projects that an image may be shared with.
    pub members_per_image: u64,
    /// Free attributes that an image may have (Glance's default).
    pub properties_per_image: usize,
    /// Bytes that a project may have; none: any number.
    pub bytes_per_project: Option<ByteSize>,
    /// How a project pays for a blob that several of its images refer to.
    pub shared_blobs: SharedBlobs,
    /// Bytes that an image may have; none: what the store takes.
    pub max_image_size: Option<ByteSize>,
    /// Bytes of an image that may be replicated; none: any.
    pub max_replica_size: Option<ByteSize>,
    /// Bytes of an object that may be imported other than by a quick import; none: any.
    pub max_import_size: Option<ByteSize>,
    /// Bytes of an image that may be exported other than by a quick export; none: any.
    pub max_export_size: Option<ByteSize>,
    /// Bytes of an image that is too large for a quick export; none: none is.
    pub max_quick_export_size: Option<ByteSize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            images_per_project: 1000,
            concurrent_replicas: 5,
            concurrent_member_jobs: 20,
            concurrent_imports: 40,
            concurrent_exports: 20,
            tags_per_image: 128,
            ims_tags_per_image: 10,
            members_per_image: 256,
            properties_per_image: 128,
            bytes_per_project: None,
            shared_blobs: SharedBlobs::Once,
            max_image_size: None,
            max_replica_size: None,
            max_import_size: None,
            max_export_size: None,
            max_quick_export_size: None,
        }
    }
}

/// Through which API a request came: it decides the audit trail's resource type (spec 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// The OpenStack Image API.
    Native,
    /// The IMS extension API.
    Ims,
}

/// A request that was authenticated.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who is calling.
    pub principal: Principal,
    /// The request's id.
    pub request_id: String,
    /// The API that it came through.
    pub surface: Surface,
    /// The token that it came with; none where it was signed.
    pub token: Option<CallerToken>,
}

impl Call {
    /// The line of the audit trail for a change that the caller makes at `at` to a thing of some kind.
    pub fn event(
        &self,
        at: Timestamp,
        trace: &str,
        kind: &str,
        resource: impl fmt::Display,
        detail: serde_json::Value,
    ) -> AuditEvent {
        AuditEvent {
            at,
            trace: trace.to_owned(),
            request_id: self.request_id.clone(),
            project: self.principal.project().cloned(),
            user: self.principal.user.id.clone(),
            resource_type: kind.to_owned(),
            resource_id: resource.to_string(),
            detail,
        }
    }
}

/// Makes the answer to keep under the request's `Idempotency-Key`, if it had one, from what was made.
pub type Keep<'a, T> = Option<&'a (dyn Fn(&T) -> StoredAnswer + Send + Sync)>;

/// The service: the use cases over the ports.
pub struct Service {
    catalog: Arc<dyn Catalog>,
    blobs: Arc<dyn Blobs>,
    keys: Arc<dyn KeyService>,
    objects: Arc<dyn Objects>,
    compute: Arc<dyn ComputeSource>,
    converter: Arc<dyn Converter>,
    projects: Arc<dyn Projects>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    access: Access,
    settings: Settings,
    rounds: reconcile::Rounds,
    looks: stores::Looks,
    /// What is cleaned up after callers that have gone.
    cleaning: TaskTracker,
}

/// The ports that the service stands on.
#[derive(Clone)]
pub struct Ports {
    /// The metadata.
    pub catalog: Arc<dyn Catalog>,
    /// The bytes.
    pub blobs: Arc<dyn Blobs>,
    /// The master keys.
    pub keys: Arc<dyn KeyService>,
    /// The buckets that images are imported from and exported to.
    pub objects: Arc<dyn Objects>,
    /// The servers, disks and backups that images are made of.
    pub compute: Arc<dyn ComputeSource>,
    /// What makes disks in other formats.
    pub converter: Arc<dyn Converter>,
    /// Who knows which projects there are.
    pub projects: Arc<dyn Projects>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Service {
    /// The service over these ports.
    pub fn new(ports: Ports, access: Access, settings: Settings) -> Self {
        let Ports {
            catalog,
            blobs,
            keys,
            objects,
            compute,
            converter,
            projects,
            clock,
            entropy,
        } = ports;
        Self {
            catalog,
            blobs,
            keys,
            objects,
            compute,
            converter,
            projects,
            clock,
            entropy,
            access,
            settings,
            rounds: reconcile::Rounds::default(),
            looks: stores::Looks::default(),
            cleaning: TaskTracker::new(),
        }
    }

    /// Waits until all is cleaned up after callers that have gone. It is for the end: when no caller is left.
    pub async fn cleaned(&self) {
        self.cleaning.close();
        self.cleaning.wait().await;
    }

    /// What the operator set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Roles and what they may do.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Whether the caller may take an action at all: the first check of an IMS call, before its body is looked at.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub fn admit(&self, call: &Call, action: Action) -> Result<()> {
        self.authorize(call, action).map(drop)
    }

    /// As [`Service::admit`], for what an enterprise project may permit.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub fn admit_within(&self, call: &Call, action: Action) -> Result<()> {
        self.authorize_within(call, action).map(drop)
    }

    /// Checks that the caller may take an action in its whole project.
    pub(crate) fn authorize<'a>(&self, call: &'a Call, action: Action) -> Result<Allowed<'a>> {
        self.access.authorize(&call.principal, action)
    }

    /// Checks that the caller may take an action in its whole project, or on some enterprise project's images: for the
    /// operations that spec 1 marks so.
    pub(crate) fn authorize_within<'a>(
        &self,
        call: &'a Call,
        action: Action,
    ) -> Result<Allowed<'a>> {
        self.access.authorize_within(&call.principal, action)
    }

    /// Whose eyes the caller sees with.
    pub(crate) fn viewer(&self, allowed: &Allowed<'_>) -> Viewer {
        let confined = allowed.enterprise_projects();
        Viewer {
            project: allowed.principal().project().cloned(),
            all_projects: allowed.in_all_projects(),
            enterprise_projects: confined.map(|these| these.iter().copied().collect()),
        }
    }

    /// An image that the caller may see, with its membership; not visible and not existing look the same.
    ///
    /// # Errors
    /// NotFound (IMG.0027); Forbidden (IMG.0026) for one that the caller may see and not do this with.
    pub(crate) async fn seen_image(&self, allowed: &Allowed<'_>, id: ImageId) -> Result<SeenImage> {
        note_image(id);
        let viewer = self.viewer(allowed);
        let found = self.catalog.image(id, viewer.project.as_ref()).await?;
        let seen = found.ok_or_else(|| no_such_image(id))?;
        if is_visible(&seen, &viewer) {
            return Ok(seen);
        }
        let caller = allowed.principal();
        match self.access.authorize_within(caller, Action::ImagesGet) {
            Ok(reads) if is_visible(&seen, &self.viewer(&reads)) => {
                Err(Error::ims(ImsCode::IMG_0026))
            }
            _ => Err(no_such_image(id)),
        }
    }

    /// An image that the caller may change: one that it sees and owns, or any for an administrator.
    ///
    /// # Errors
    /// NotFound where the caller can't see it; Forbidden where it sees it but does not own it.
    pub(crate) async fn owned_image(&self, allowed: &Allowed<'_>, id: ImageId) -> Result<Image> {
        let seen = self.seen_image(allowed, id).await?;
        let own = allowed.principal().project() == Some(&seen.image.owner);
        if own || allowed.in_all_projects() {
            Ok(seen.image)
        } else {
            Err(Error::forbidden(
                "This operation can be performed only by the image's owner.",
            ))
        }
    }

    /// As [`Service::owned_image`], with the refusals of the IMS API: it says of an image that everybody sees that it
    /// is one, also to its owner.
    ///
    /// # Errors
    /// IMG.0027 where the caller can't see it, IMG.0083 for a public one, IMG.0047 for another's.
    pub(crate) async fn ims_owned_image(
        &self,
        allowed: &Allowed<'_>,
        id: ImageId,
    ) -> Result<Image> {
        let image = self.seen_image(allowed, id).await?.image;
        if allowed.in_all_projects() {
            return Ok(image);
        }
        let own = allowed.principal().project() == Some(&image.owner);
        match image.visibility {
            Visibility::Public => Err(Error::ims(ImsCode::IMG_0083)),
            // A word that IMS does not have: to all but its owner it is as good as public.
            Visibility::Community if !own => Err(Error::ims(ImsCode::IMG_0083)),
            _ if !own => Err(Error::ims(ImsCode::IMG_0047)),
            _ => Ok(image),
        }
    }

    /// An image that the caller may change, or the refusal of the API that the call came through.
    pub(crate) async fn changeable_image(
        &self,
        call: &Call,
        allowed: &Allowed<'_>,
        id: ImageId,
    ) -> Result<Image> {
        match call.surface {
            Surface::Native => self.owned_image(allowed, id).await,
            Surface::Ims => self.ims_owned_image(allowed, id).await,
        }
    }

    /// The line of the audit trail for a change that the caller makes.
    pub(crate) fn event(
        &self,
        call: &Call,
        trace: &str,
        resource: impl fmt::Display,
        detail: serde_json::Value,
    ) -> AuditEvent {
        let kind = match call.surface {
            Surface::Native => "image",
            Surface::Ims => "ims",
        };
        call.event(self.clock.now(), trace, kind, resource, detail)
    }

    /// As [`Service::event`], without more detail and without an answer to keep.
    pub(crate) fn trail(&self, call: &Call, trace: &str, resource: impl fmt::Display) -> Trail {
        let event = self.event(call, trace, resource, serde_json::json!({}));
        Trail {
            event,
            answer: None,
        }
    }

    /// The answer that was kept under an idempotency key.
    pub async fn kept_answer(&self, scope: &str, key: &str) -> Result<Option<StoredAnswer>> {
        self.catalog.answer(scope, key).await
    }

    /// A job of the caller's project, or any for an administrator.
    ///
    /// # Errors
    /// Forbidden (IMG.0026); IMG.0023 where there is none that the caller may see (decision D2).
    pub async fn job(&self, call: &Call, id: &JobId) -> Result<Job> {
        let allowed = self.authorize_within(call, Action::ImagesGet)?;
        let job = self.catalog.job(id).await?;
        job.filter(|job| sees_job(&allowed, job))
            .ok_or_else(|| Error::ims(ImsCode::IMG_0023))
    }

    /// The parts of a job that the caller was shown, oldest first.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub async fn sub_jobs(&self, call: &Call, job: &Job) -> Result<Vec<Job>> {
        self.authorize_within(call, Action::ImagesGet)?;
        self.catalog.sub_jobs(&job.id).await
    }

    /// The jobs of the caller's project, newest first.
    pub async fn jobs(
        &self,
        call: &Call,
        status: Option<JobStatus>,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<Job>> {
        let allowed = self.authorize(call, Action::ImagesList)?;
        let project = allowed.principal().require_project()?;
        self.catalog.list_jobs(project, status, after, limit).await
    }

    /// Makes an enterprise project.
    pub async fn create_enterprise_project(
        &self,
        call: &Call,
        name: &str,
        keep: Keep<'_, EnterpriseProject>,
    ) -> Result<EnterpriseProject> {
        self.authorize(call, Action::IdentityAdminister)?;
        let length = name.chars().count();
        if !(1..=64).contains(&length) || name.chars().any(char::is_control) {
            return Err(Error::invalid(
                "An enterprise project's name has 1 to 64 characters.",
            ));
        }
        let project = EnterpriseProject {
            id: crate::id::EnterpriseProjectId::Id(crate::id::random_uuid(self.entropy.as_ref())),
            name: name.to_owned(),
            enabled: true,
            created_at: self.clock.now(),
        };
        let detail = serde_json::json!({ "name": name });
        let trail = Trail {
            event: self.event(call, "createEnterpriseProject", project.id, detail),
            answer: keep.map(|keep| keep(&project)),
        };
        self.catalog
            .insert_enterprise_project(&project, trail)
            .await?;
        Ok(project)
    }

    /// The enterprise projects, by name.
    pub async fn enterprise_projects(&self, call: &Call) -> Result<Vec<EnterpriseProject>> {
        self.authorize(call, Action::IdentityAdminister)?;
        self.catalog.enterprise_projects().await
    }

    /// Enables or disables an enterprise project. The default one can't be disabled.
    pub async fn set_enterprise_project_enabled(
        &self,
        call: &Call,
        id: crate::id::EnterpriseProjectId,
        enabled: bool,
    ) -> Result<()> {
        self.authorize(call, Action::IdentityAdminister)?;
        if id == crate::id::EnterpriseProjectId::Default {
            return Err(Error::conflict(
                "The default enterprise project is always enabled.",
            ));
        }
        let trace = if enabled {
            "enableEnterpriseProject"
        } else {
            "disableEnterpriseProject"
        };
        let line = self.event(call, trace, id, serde_json::json!({}));
        let changed = self
            .catalog
            .set_enterprise_project_enabled(id, enabled, &line);
        if !changed.await? {
            return Err(Error::not_found("There is no such enterprise project."));
        }
        Ok(())
    }

    /// The audit trail, newest first: the caller's project's, or every project's for who runs the service.
    pub async fn audit_trail(
        &self,
        call: &Call,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, AuditEvent)>> {
        if self
            .access
            .permits(&call.principal, Action::ServiceAdminister)
        {
            return self.catalog.audit_trail(None, before, limit).await;
        }
        self.authorize(call, Action::ImagesList)?;
        let project = call.principal.require_project()?;
        self.catalog.audit_trail(Some(project), before, limit).await
    }

    /// Succeeds while the service can do its work: the readiness check.
    pub async fn ready(&self) -> Result<()> {
        self.catalog.ping().await?;
        self.blobs.free_space(None).await.map(drop)
    }

    /// How many jobs wait and how many run, for the metrics.
    pub async fn unfinished_jobs(&self) -> Result<(u64, u64)> {
        self.catalog.unfinished_jobs().await
    }

    /// On whose behalf a customer's key is used for this call.
    pub(crate) fn key_user(&self, call: &Call) -> Result<KeyUser> {
        Ok(KeyUser {
            project: call.principal.require_project()?.clone(),
            user: call.principal.user.id.clone(),
            authority: call
                .token
                .clone()
                .map_or(Authority::Signed, Authority::Token),
        })
    }
}

/// Whether a caller sees a job: one of its project's; where it is confined to enterprise projects, one of its own.
pub(crate) fn sees_job(allowed: &Allowed<'_>, job: &Job) -> bool {
    let caller = allowed.principal();
    let own = allowed.enterprise_projects().is_none() || caller.user.id == job.user;
    allowed.in_all_projects() || (caller.project() == Some(&job.project) && own)
}

fn is_visible(seen: &SeenImage, viewer: &Viewer) -> bool {
    let owned = viewer.project.as_ref() == Some(&seen.image.owner);
    if let Some(these) = &viewer.enterprise_projects {
        return owned && these.contains(&seen.image.enterprise_project);
    }
    viewer.all_projects
        || matches!(
            seen.image.visibility,
            Visibility::Public | Visibility::Community
        )
        || owned
        || (seen.image.visibility == Visibility::Shared && seen.membership.is_some())
}

/// Lets the log lines of the request at hand name the image that it is about.
fn note_image(id: ImageId) {
    tracing::Span::current().record("image.id", tracing::field::display(id));
}

pub(crate) fn no_such_image(id: ImageId) -> Error {
    Error::not_found(format!("No image found with ID {id}")).with_code(ImsCode::IMG_0027)
}
