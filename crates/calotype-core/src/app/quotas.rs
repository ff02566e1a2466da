//! Quotas: what a project may have and has, and what an operator sets for it.

use super::{Call, Service};
use crate::access::Action;
use crate::error::{Error, Result};
use crate::id::ProjectId;
use crate::ports::{LimitChange, OwnLimit, OwnLimits, ProjectQuota, SharedBlobs};
use crate::size::ByteSize;

/// The limit that counts, and whether it is the project's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitInForce {
    /// The most; none: any number.
    pub most: Option<u64>,
    /// Whether the project has it for itself.
    pub own: bool,
}

/// What a project may have and has, with the limits that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Images.
    pub images: LimitInForce,
    /// Members of an image.
    pub members: LimitInForce,
    /// Bytes.
    pub bytes: LimitInForce,
    /// How a project pays for a blob that several of its images refer to.
    pub shared_blobs: SharedBlobs,
    /// The limits of its own, and what it has.
    pub project: ProjectQuota,
}

impl Quota {
    /// The bytes that the project pays for, without those that are reserved.
    pub const fn charged(&self) -> ByteSize {
        self.project.usage.charged(self.shared_blobs)
    }
}

impl Service {
    /// What the caller's project may have and has.
    ///
    /// # Errors
    /// Forbidden (IMG.0026), also where the credential has no project.
    pub async fn own_quota(&self, call: &Call) -> Result<Quota> {
        self.authorize_within(call, Action::QuotasGet)?;
        let project = call.principal.require_project()?;
        Ok(self.in_force(self.catalog.quota(project).await?))
    }

    /// What a project may have and has, for who runs the service.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub async fn quota_of(&self, call: &Call, project: &ProjectId) -> Result<Quota> {
        self.authorize(call, Action::ServiceAdminister)?;
        Ok(self.in_force(self.catalog.quota(project).await?))
    }

    /// Changes a project's own limits. One that is below what the project has is no error: the project gets no more until
    /// it has less.
    ///
    /// # Errors
    /// Forbidden (IMG.0026).
    pub async fn set_quota(
        &self,
        call: &Call,
        project: &ProjectId,
        change: &LimitChange,
    ) -> Result<Quota> {
        self.authorize(call, Action::ServiceAdminister)?;
        let mut detail = serde_json::json!({});
        for (name, limit) in [
            ("images", change.images),
            ("members", change.members),
            ("bytes", change.bytes),
        ] {
            if let Some(limit) = limit {
                detail[name] = match limit {
                    OwnLimit::Configured => "configured".into(),
                    OwnLimit::Unlimited => "unlimited".into(),
                    OwnLimit::At(most) => most.into(),
                };
            }
        }
        let line = self.event(call, "setQuota", project, detail);
        self.catalog.set_limits(project, change, &line).await?;
        Ok(self.in_force(self.catalog.quota(project).await?))
    }

    /// Takes a project's own limits away: the configuration's count again.
    ///
    /// # Errors
    /// Forbidden (IMG.0026); NotFound where it has none.
    pub async fn reset_quota(&self, call: &Call, project: &ProjectId) -> Result<()> {
        self.authorize(call, Action::ServiceAdminister)?;
        let line = self.event(call, "resetQuota", project, serde_json::json!({}));
        if self.catalog.reset_limits(project, &line).await? {
            Ok(())
        } else {
            Err(Error::not_found("The project has no limits of its own."))
        }
    }

    fn in_force(&self, project: ProjectQuota) -> Quota {
        let limits = &self.settings.limits;
        let OwnLimits {
            images,
            members,
            bytes,
        } = project.own;
        let in_force = |own: OwnLimit, configured| LimitInForce {
            most: own.or(configured),
            own: own != OwnLimit::Configured,
        };
        Quota {
            images: in_force(images, Some(limits.images_per_project)),
            members: in_force(members, Some(limits.members_per_image)),
            bytes: in_force(bytes, limits.bytes_per_project.map(ByteSize::bytes)),
            shared_blobs: limits.shared_blobs,
            project,
        }
    }
}
