//! Sharing: which projects an image is shared with, and what they answered.
//!
//! Only an image whose visibility is `shared` has members that count. Those of an image that stops being shared are
//! kept, and see it again if it is shared again, as in Glance. Under OTC's profile a private image is shared by its first
//! member, and private again without its last (spec 4.3); elsewhere that holds for the IMS API alone.

use crate::access::{Action, Allowed};
use crate::app::{Call, Keep, Profile, Service};
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ImageId, ProjectId};
use crate::image::{Image, Member, MemberStatus, Visibility};
use crate::keys::{KeyFault, KeyRole, KeyUser};
use crate::ports::{MemberLimit, Trail};

/// The most members of a full-ECS image (spec 6.2).
const WHOLE_IMAGE_MEMBERS: u64 = 10;

impl Service {
    /// Shares an image with a project, which has yet to answer.
    ///
    /// # Errors
    /// NotFound; Forbidden where the image is not the caller's or not `shared`; InvalidRequest (IMG.0076) for the
    /// owner itself, IMG.0135 for a full-ECS image that is not of a backup, and IMG.0098 where the image's key does not let
    /// the project read; Conflict where the project is a member; LimitReached (IMG.0088).
    pub async fn add_member(
        &self,
        call: &Call,
        id: ImageId,
        project: &ProjectId,
        keep: Keep<'_, Member>,
    ) -> Result<Member> {
        let allowed = self.authorize_sharing(call)?;
        let image = self.owned_image(&allowed, id).await?;
        self.check_has_members(&image)?;
        if image.owner == *project {
            return Err(Error::ims(ImsCode::IMG_0076));
        }
        if !image.may_be_shared() {
            return Err(Error::ims(ImsCode::IMG_0135));
        }
        if !self
            .may_receive(&self.key_user(call)?, &image, project)
            .await?
        {
            return Err(Error::ims(ImsCode::IMG_0098));
        }
        let now = self.clock.now();
        let member = Member {
            image: id,
            project: project.clone(),
            status: MemberStatus::Pending,
            created_at: now,
            updated_at: now,
        };
        let trail = Trail {
            answer: keep.map(|keep| keep(&member)),
            ..self.member_trail(call, "addMember", id, project)
        };
        let limit = self.member_limit(Some(&image));
        let added = self.catalog.add_member(&member, limit, trail).await;
        added.map(|()| member).map_err(|error| match error.kind() {
            ErrorKind::Conflict => {
                Error::conflict(format!("Member {project} is duplicated for image {id}"))
            }
            _ => error,
        })
    }

    /// Answers to an image being shared with a project. The project answers for itself; an administrator for any.
    ///
    /// # Errors
    /// NotFound where the image can't be seen or the project is no member; Forbidden for the owner and where the
    /// image is not `shared`.
    pub async fn answer_membership(
        &self,
        call: &Call,
        id: ImageId,
        project: &ProjectId,
        status: MemberStatus,
    ) -> Result<Member> {
        let allowed = self.authorize_sharing(call)?;
        let image = self.seen_image(&allowed, id).await?.image;
        check_is_shared(&image)?;
        if !allowed.in_all_projects() {
            if allowed.principal().project() == Some(&image.owner) {
                return Err(Error::forbidden(format!(
                    "Not allowed to update members for image {id}."
                )));
            }
            if allowed.principal().project() != Some(project) {
                return Err(no_such_member(id, project));
            }
        }
        let trail = self.member_trail(call, "updateMember", id, project);
        let answered = self
            .catalog
            .set_member_status(id, project, status, trail)
            .await?;
        answered.ok_or_else(|| no_such_member(id, project))
    }

    /// Ends the sharing of an image with a project.
    ///
    /// # Errors
    /// NotFound where the image can't be seen or the project is no member; Forbidden where the image is not the
    /// caller's or not `shared`.
    pub async fn remove_member(&self, call: &Call, id: ImageId, project: &ProjectId) -> Result<()> {
        let allowed = self.authorize_sharing(call)?;
        let image = self.owned_image(&allowed, id).await?;
        check_is_shared(&image)?;
        let trail = self.member_trail(call, "deleteMember", id, project);
        let emptied = match self.settings.profile {
            Profile::Calotype => Visibility::Shared,
            Profile::Otc => Visibility::Private,
        };
        let catalog = &self.catalog;
        if catalog.remove_member(id, project, emptied, trail).await? {
            Ok(())
        } else {
            Err(no_such_member(id, project))
        }
    }

    /// Checks that the caller may share images, through the native API, which takes the reading of them too (spec 1.2).
    fn authorize_sharing<'a>(&self, call: &'a Call) -> Result<Allowed<'a>> {
        self.authorize(call, Action::ImagesGet)?;
        self.authorize(call, Action::ImagesShare)
    }

    /// Whether an image can be given members.
    fn check_has_members(&self, image: &Image) -> Result<()> {
        if self.settings.profile == Profile::Otc && image.visibility == Visibility::Private {
            return Ok(());
        }
        check_is_shared(image)
    }

    /// How many members an image may have, where it is known.
    pub(super) fn member_limit(&self, image: Option<&Image>) -> MemberLimit {
        let whole = image.is_some_and(Image::is_whole);
        MemberLimit {
            configured: self.settings.limits.members_per_image,
            at_most: whole.then_some(WHOLE_IMAGE_MEMBERS),
        }
    }

    /// Whether the image's key lets a project read (spec 9.1). Where its key service does not say, the first reading
    /// will: nobody reads what its key does not open.
    pub(super) async fn may_receive(
        &self,
        by: &KeyUser,
        image: &Image,
        project: &ProjectId,
    ) -> Result<bool> {
        let Some(key) = &image.cmk_id else {
            return Ok(true);
        };
        match self.keys.lets_read(by, key, project).await {
            Ok(known) => Ok(known.unwrap_or(true)),
            Err(KeyFault::Missing | KeyFault::NotEnabled | KeyFault::Forbidden) => Ok(false),
            Err(fault) => Err(fault.into_error(KeyRole::Source)),
        }
    }

    /// The members of an image that the caller may know of: all for its owner, itself for a member.
    ///
    /// # Errors
    /// NotFound; Forbidden where the image is not `shared`.
    pub async fn members(&self, call: &Call, id: ImageId) -> Result<Vec<Member>> {
        let allowed = self.authorize_sharing(call)?;
        let image = self.seen_image(&allowed, id).await?.image;
        check_is_shared(&image)?;
        let mut members = self.catalog.members(id).await?;
        members.retain(|member| knows_of(&allowed, &image, &member.project));
        Ok(members)
    }

    /// A member of an image.
    ///
    /// # Errors
    /// NotFound, also where there are members that the caller may not know of.
    pub async fn member(&self, call: &Call, id: ImageId, project: &ProjectId) -> Result<Member> {
        let members = self.members(call, id).await.map_err(|error| {
            let not_shared = error.kind() == ErrorKind::Forbidden && error.code().is_none();
            if not_shared {
                no_such_member(id, project)
            } else {
                error
            }
        })?;
        let mut members = members.into_iter();
        members
            .find(|member| member.project == *project)
            .ok_or_else(|| no_such_member(id, project))
    }

    fn member_trail(&self, call: &Call, trace: &str, id: ImageId, project: &ProjectId) -> Trail {
        let detail = serde_json::json!({ "member": project.as_str() });
        Trail {
            event: self.event(call, trace, id, detail),
            answer: None,
        }
    }
}

/// Whether the caller may know that `project` is a member: recipients don't learn of each other.
fn knows_of(allowed: &Allowed<'_>, image: &Image, project: &ProjectId) -> bool {
    let caller = allowed.principal().project();
    allowed.in_all_projects() || caller == Some(&image.owner) || caller == Some(project)
}

fn check_is_shared(image: &Image) -> Result<()> {
    if image.visibility == Visibility::Shared {
        Ok(())
    } else {
        Err(Error::forbidden("Only shared images have members."))
    }
}

fn no_such_member(id: ImageId, project: &ProjectId) -> Error {
    Error::not_found(format!(
        "{project} not found in the member list of the image {id}."
    ))
}
