//! Replication within the region: what is checked and written before the caller has its answer.
//!
//! The checks stand in the order of spec 3.3, with the codes that it gives. All that must hold when the job is
//! accepted (the source's state, the quota, the concurrency, the enterprise project) is decided again inside
//! the one transaction that writes job, replica and usage, so that no race gets past it.

use crate::access::{Action, Allowed};
use crate::app::{Call, Keep, Service};
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{EnterpriseProjectId, ImageId, JobId, KeyId, ProjectId};
use crate::image::{Image, ImageStatus, MemberStatus, UnknownWord, Visibility, word_enum};
use crate::job::{Job, JobFamily, JobType, Progress, ReplicaBytes, Replication};
use crate::name::{Description, ImageName};
use crate::ports::{ImageLimit, NewReplica, SeenImage, Trail};
use crate::size::ByteSize;
use crate::time::Timestamp;
use std::fmt;
use std::str::FromStr;

/// What a caller asks for: the four fields of spec 3.1.
#[derive(Debug, Clone)]
pub struct ReplicaOrder {
    /// The image to replicate.
    pub source: ImageId,
    /// The replica's name.
    pub name: ImageName,
    /// The replica's description.
    pub description: Description,
    /// The key to seal the replica under, as the caller wrote it.
    pub cmk_id: Option<String>,
    /// The enterprise project for the replica, as the caller wrote it.
    pub enterprise_project: Option<String>,
    /// How a replica under another key gets its bytes.
    pub mode: EncryptionMode,
    /// The store that a replica under another key is to be in, as the caller wrote it.
    pub store: Option<String>,
    /// Which permissions a key takes.
    pub strictness: Strictness,
}

/// What a caller asks for of another region.
#[derive(Debug, Clone)]
pub struct ElsewhereOrder {
    /// The image to replicate.
    pub source: ImageId,
    /// The replica's name.
    pub name: ImageName,
    /// The replica's description.
    pub description: Description,
}

word_enum! {
    /// How a replica under another key gets its bytes. An extension: the documented body knows no such field.
    EncryptionMode {
        /// They are sealed again under a data key of their own.
        Reseal = "reseal",
        /// It shares the source's, whose data key is wrapped again: who has the former wrap and its master key can
        /// still open them.
        Rewrap = "rewrap",
    }
}

/// Which permissions the use of a key takes (decision D19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// What the key service demands.
    KeyService,
    /// The caller's role must permit the actions on keys too.
    Caller,
}

/// The keys that bytes go from and to; none: the service's own, or no key at all.
pub(super) struct Keys {
    pub(super) source: Option<KeyId>,
    pub(super) target: Option<KeyId>,
}

impl Keys {
    /// Tells in a line of the audit trail which were used, and whether that lowers the protection.
    pub(super) fn tell(&self, detail: &mut serde_json::Value) {
        if let Some(key) = &self.source {
            detail["source_key"] = key.as_str().into();
        }
        if let Some(key) = &self.target {
            detail["target_key"] = key.as_str().into();
        }
        if self.source.is_some() && self.target.is_none() {
            detail["protection"] = "lowered".into();
        }
    }
}

/// Properties of the source that its replica does not inherit (spec 3.6): those that say where the source's
/// bytes came from or lie, and the description.
const NOT_INHERITED: &[&str] = &[
    "__backup_id",
    "__data_origin",
    "__description",
    "__image_location",
    "__image_size",
    "__originalimagename",
    "__whole_image",
];

impl Service {
    /// Whether the caller may replicate at all: the first check, before the request's body is looked at.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub fn authorize_replication(&self, call: &Call) -> Result<()> {
        self.replication_permits(call).map(drop)
    }

    /// What permits a replication: the first of them the reading of the source, all of them the making of the replica.
    fn replication_permits<'a>(&self, call: &'a Call) -> Result<Vec<Allowed<'a>>> {
        let mut permits = vec![self.authorize_within(call, Action::ImagesCopy)?];
        if self.access.uses_enterprise_projects() {
            permits.push(self.authorize_within(call, Action::ServerImagesCreate)?);
        }
        call.principal.require_project()?;
        Ok(permits)
    }

    /// Accepts a replication and returns its job's id.
    ///
    /// # Errors
    /// Each with its code, in the order of spec 3.3: IMG.0026, 0027, 0083, 0196, 0197, 0130, 0167, 0046, 0057, 0059,
    /// 0118, 0095, 0096, 0101 to 0103, 0097, 0099, 0187, 0155, 0015, 0060, 0059 where the project has no room for the
    /// bytes. A refusal changes nothing.
    pub async fn replicate(
        &self,
        call: &Call,
        order: &ReplicaOrder,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let permits = self.replication_permits(call)?;
        let allowed = self.authorize_within(call, Action::ImagesCopy)?;
        let project = call.principal.require_project()?;
        let store = self.chosen_store(order.store.as_deref())?;
        let seen = self.seen_image(&allowed, order.source).await?;
        self.check_relation(&seen, project, order.cmk_id.as_deref())?;
        let source = &seen.image;
        self.check_kind_and_state(source)?;
        let keys = self.check_keys(call, source, order).await?;
        let wanted = order.enterprise_project.as_deref();
        let enterprise_project = self.wanted_enterprise_project(&permits, wanted).await?;
        let blob = source.blob.ok_or_else(|| Error::ims(ImsCode::IMG_0046))?;
        let limits = &self.settings.limits;
        let image_limit = ImageLimit(limits.images_per_project);
        let concurrency = limits.concurrent_replicas;
        // So that who is over a limit gives the key services nothing to do.
        self.catalog
            .check_room(
                project,
                Some(image_limit),
                JobFamily::Replication,
                concurrency,
            )
            .await?;
        let byte_limit = self.byte_limit();
        if reseals(&keys, order.mode) {
            let size = source.size.unwrap_or_default();
            self.catalog.check_bytes(project, size, byte_limit).await?;
        }
        let bytes = self.plan_bytes(call, source, blob, order, &keys).await?;
        let store = match bytes {
            ReplicaBytes::Reseal(_) => store,
            ReplicaBytes::Share { .. } => {
                self.check_is_in(blob, store).await?;
                None
            }
        };

        let now = self.clock.now();
        let mut replica = self.replica_of(source, order, project, enterprise_project, now);
        replica.cmk_id = keys.target.clone();
        let job = Job {
            source: Some(source.id),
            image: Some(replica.id),
            image_name: replica.name.clone(),
            progress: Progress {
                total: match bytes {
                    ReplicaBytes::Share { .. } => ByteSize::ZERO,
                    ReplicaBytes::Reseal(_) => source.size.unwrap_or_default(),
                },
                ..Progress::default()
            },
            ..Job::accepted(
                JobId::random(self.entropy.as_ref()),
                project.clone(),
                call.principal.user.id.clone(),
                JobType::CopyImageInRegion,
                now,
            )
        };
        let id = job.id.clone();
        let detail = detail_of(&job, &keys, order.mode);
        let trail = Trail {
            event: self.event(call, "copyImage", source.id, detail),
            answer: keep.map(|keep| keep(&id)),
        };
        let accepted = NewReplica {
            job,
            image: replica,
            replication: Replication {
                source: blob,
                bytes,
            },
            store,
            image_limit,
            byte_limit,
            concurrency,
        };
        self.catalog.submit_replica(&accepted, trail).await?;
        Ok(id)
    }

    /// Checks a replication to another region (spec 3.8). There is none: one that nothing is wrong with is refused too.
    ///
    /// # Errors
    /// IMG.0026, 0027, 0083, 0196, 0197, 0130, 0167, 0046, 0057, 0059 as [`Service::replicate`]; IMG.0060; IMG.0105.
    pub async fn replicate_elsewhere(&self, call: &Call, order: &ElsewhereOrder) -> Result<JobId> {
        self.authorize_replication(call)?;
        let allowed = self.authorize_within(call, Action::ImagesCopy)?;
        let project = call.principal.require_project()?;
        let seen = self.seen_image(&allowed, order.source).await?;
        self.check_relation(&seen, project, None)?;
        self.check_kind_and_state(&seen.image)?;
        let unsupported = |message: String| Error::invalid(message).with_code(ImsCode::IMG_0105);
        if seen.image.cmk_id.is_some() {
            return Err(unsupported(
                "An encrypted image can't be replicated to another region.".to_owned(),
            ));
        }
        let concurrency = self.settings.limits.concurrent_replicas;
        self.catalog
            .check_room(project, None, JobFamily::Replication, concurrency)
            .await?;
        let region = &self.settings.region;
        Err(unsupported(format!(
            "There is one region here, {region}: POST /v1/cloudimages/{}/copy replicates within it.",
            order.source
        )))
    }

    /// Steps 7 to 9: how the caller is related to the source.
    fn check_relation(
        &self,
        seen: &SeenImage,
        project: &ProjectId,
        key: Option<&str>,
    ) -> Result<()> {
        let image = &seen.image;
        if image.owner == *project {
            return Ok(());
        }
        match image.visibility {
            // A community image is open to all, as a public one is, and follows the same setting.
            Visibility::Public | Visibility::Community if self.settings.replicate_public => {}
            Visibility::Public | Visibility::Community => {
                return Err(Error::ims(ImsCode::IMG_0083));
            }
            Visibility::Shared if seen.membership == Some(MemberStatus::Accepted) => {}
            Visibility::Shared | Visibility::Private => return Err(Error::ims(ImsCode::IMG_0196)),
        }
        // Decision D7: another project's encrypted image becomes the caller's only under a key of its own.
        let under_an_own_key = is_key(key);
        if image.cmk_id.is_some() && !(self.settings.replicate_shared_encrypted && under_an_own_key)
        {
            return Err(Error::ims(ImsCode::IMG_0197));
        }
        Ok(())
    }

    /// Steps 10 to 13: what the source is, before how it is, so that a caller learns the lasting reason first.
    fn check_kind_and_state(&self, source: &Image) -> Result<()> {
        if source.visibility == Visibility::Public && !self.settings.replicate_public {
            return Err(Error::ims(ImsCode::IMG_0083));
        }
        if source.is_whole() {
            return Err(Error::ims(ImsCode::IMG_0130));
        }
        if source.is_iso() {
            return Err(Error::ims(ImsCode::IMG_0167));
        }
        if source.status != ImageStatus::Active {
            return Err(Error::ims(ImsCode::IMG_0046));
        }
        if source.damaged_at.is_some() {
            return Err(Error::ims(ImsCode::IMG_0057));
        }
        match self.settings.limits.max_replica_size {
            Some(max) if source.size.is_some_and(|size| size > max) => {
                Err(Error::ims(ImsCode::IMG_0059))
            }
            _ => Ok(()),
        }
    }

    /// The replica's row, with what it inherits (spec 3.6, decisions D9 and D13).
    fn replica_of(
        &self,
        source: &Image,
        order: &ReplicaOrder,
        project: &ProjectId,
        enterprise_project: EnterpriseProjectId,
        now: Timestamp,
    ) -> Image {
        let mut properties = source.properties.clone();
        properties.retain(|name, _| {
            !name.starts_with("__system") && !NOT_INHERITED.contains(&name.as_str())
        });
        let origin = format!("image,{},{}", self.settings.region, source.id);
        properties.insert("__data_origin".to_owned(), origin);
        properties.insert("__originalimagename".to_owned(), source.id.to_string());
        properties.insert(
            "__description".to_owned(),
            order.description.as_str().to_owned(),
        );
        Image {
            name: Some(order.name.as_str().to_owned()),
            visibility: Visibility::Private,
            disk_format: source.disk_format.clone(),
            container_format: source.container_format.clone(),
            min_disk: source.min_disk,
            min_ram: source.min_ram,
            virtual_size: source.virtual_size,
            enterprise_project,
            properties,
            created_at: now,
            updated_at: now,
            ..self.blank_image(None, project.clone())
        }
    }
}

/// Whether the replica gets bytes of its own.
fn reseals(keys: &Keys, mode: EncryptionMode) -> bool {
    mode == EncryptionMode::Reseal && (keys.source.is_some() || keys.target.is_some())
}

fn is_key(text: Option<&str>) -> bool {
    text.is_some_and(|text| !text.trim().is_empty())
}

/// What the audit trail tells of a replication: which keys were used, and whether it lowered the protection
/// (decision D6).
fn detail_of(job: &Job, keys: &Keys, mode: EncryptionMode) -> serde_json::Value {
    let mut detail = serde_json::json!({
        "job_id": job.id.as_str(),
        "replica": job.image.map(|image| image.to_string()),
    });
    keys.tell(&mut detail);
    if mode == EncryptionMode::Rewrap {
        detail["encryption_mode"] = mode.as_str().into();
    }
    detail
}
