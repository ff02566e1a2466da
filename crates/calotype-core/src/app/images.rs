//! Images' records: making, finding, reading, changing and deleting them.
//!
//! # Consistency
//! A change is made in the record as it was read and written only if nobody changed it since; where somebody did,
//! it is made again in what they left, a few times, before the caller is told of the conflict.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::{Action, Allowed};
use crate::app::os_version::{self, DEFAULT_OS_VERSION, OS_VERSION};
use crate::app::patch::{Change, Setting, checked_tags};
use crate::app::{Call, Keep, Profile, Service, Surface};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EnterpriseProjectId, ImageId, ProjectId};
use crate::image::{Digests, Image, ImageStatus, ListedImage, Visibility};
use crate::ports::{ImageLimit, Trail};
use crate::query::{ImageQuery, Viewer};

/// How often a change is tried where others come first.
const ATTEMPTS: u32 = 16;

/// An image to be made.
#[derive(Debug, Clone, Default)]
pub struct NewImage {
    /// The id that the caller chose, if it did.
    pub id: Option<ImageId>,
    /// Its attributes. What is not among them is as the profile has it.
    pub settings: Vec<Setting>,
}

impl Service {
    /// Makes an image's record, `queued`.
    ///
    /// An image whose visibility the caller leaves open is `shared`, as in Glance: seen by its owner alone until it
    /// gets members, which only a shared image can have. Under OTC's profile it is `private`, and its formats are
    /// `zvhd2` and `bare` where the caller leaves them open.
    ///
    /// # Errors
    /// Forbidden for an attribute that the caller may not set; InvalidRequest; LimitReached (IMG.0015 for the
    /// project's images); Conflict where the id is or was in use.
    pub async fn create_image(
        &self,
        call: &Call,
        order: &NewImage,
        keep: Keep<'_, Image>,
    ) -> Result<Image> {
        let allowed = self.authorize(call, Action::ImagesCreate)?;
        let owner = owner_of(&allowed, &order.settings)?;
        let mut image = self.blank_image(order.id, owner);
        super::note_image(image.id);
        let changes: Vec<_> = order.settings.iter().cloned().map(Change::Set).collect();
        self.apply(call, &mut image, &changes)?;
        self.check_enterprise_projects(&changes).await?;
        if self.settings.profile == Profile::Otc {
            fill_in_as_otc_does(&mut image);
        }
        let detail = serde_json::json!({ "name": image.name });
        let trail = Trail {
            event: self.event(call, "createImage", image.id, detail),
            answer: keep.map(|keep| keep(&image)),
        };
        let limit = ImageLimit(self.settings.limits.images_per_project);
        self.catalog.insert_image(&image, limit, trail).await?;
        Ok(image)
    }

    /// An image that the caller may see.
    ///
    /// # Errors
    /// NotFound (IMG.0027) where there is none that the caller may see.
    pub async fn show_image(&self, call: &Call, id: ImageId) -> Result<Image> {
        let allowed = self.authorize_within(call, Action::ImagesGet)?;
        Ok(self.seen_image(&allowed, id).await?.image)
    }

    /// A page of the images that the caller may see. `query` is given the eyes that `call` permits.
    ///
    /// # Errors
    /// NotFound where the marker is no image that the caller may see.
    pub async fn list_images(
        &self,
        call: &Call,
        query: impl FnOnce(Viewer) -> ImageQuery,
    ) -> Result<Vec<Arc<ListedImage>>> {
        // Of the two lists, an enterprise project permits the one that can be asked for its images (spec 1).
        let allowed = match call.surface {
            Surface::Ims => self.authorize_within(call, Action::ImagesList)?,
            Surface::Native => self.authorize(call, Action::ImagesList)?,
        };
        let query = self.seen_query(&allowed, query).await?;
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        self.catalog.list_images(&query).await
    }

    /// A list's query with the eyes that the caller has.
    ///
    /// # Errors
    /// NotFound where the marker is no image that the caller may see.
    pub(super) async fn seen_query(
        &self,
        allowed: &Allowed<'_>,
        query: impl FnOnce(Viewer) -> ImageQuery,
    ) -> Result<ImageQuery> {
        let query = query(self.viewer(allowed));
        if let Some(marker) = query.marker {
            self.seen_image(allowed, marker).await?;
        }
        Ok(query)
    }

    /// Makes the changes, all or none, in order. Returns the image as it then is.
    ///
    /// # Errors
    /// NotFound; Forbidden for another's image or an attribute that the caller may not set; InvalidRequest;
    /// LimitReached; Conflict where an attribute is or is not there against the change's demand, or where others
    /// kept changing the image.
    pub async fn update_image(
        &self,
        call: &Call,
        id: ImageId,
        changes: &[Change],
    ) -> Result<Image> {
        let attributes: Vec<_> = changes.iter().map(Change::attribute).collect();
        let revision = Revision {
            id,
            trace: "updateImage",
            detail: serde_json::json!({ "attributes": attributes }),
        };
        let allowed = self.authorize_within(call, Action::ImagesUpdate)?;
        self.owned_image(&allowed, id).await?;
        self.check_enterprise_projects(changes).await?;
        let edit = |image: &mut Image| self.apply(call, image, changes);
        self.revise(call, &allowed, &revision, &edit).await
    }

    /// Gives an image a tag. Not an error where it has it.
    ///
    /// # Errors
    /// NotFound, Forbidden, InvalidRequest; LimitReached for one tag too many.
    pub async fn add_tag(&self, call: &Call, id: ImageId, tag: &str) -> Result<()> {
        let revision = Revision {
            id,
            trace: "addTag",
            detail: serde_json::json!({ "tag": tag }),
        };
        let add = |image: &mut Image| {
            let mut tags = image.tags.clone();
            tags.push(tag.to_owned());
            image.tags = checked_tags(id, &tags, &self.settings.limits)?;
            Ok(())
        };
        self.authorize(call, Action::ImagesGet)?;
        let allowed = self.authorize(call, Action::ImagesUpdate)?;
        let revised = self.revise(call, &allowed, &revision, &add);
        revised.await.map(drop)
    }

    /// Takes a tag from an image.
    ///
    /// # Errors
    /// NotFound, also where the image does not have the tag; Forbidden.
    pub async fn remove_tag(&self, call: &Call, id: ImageId, tag: &str) -> Result<()> {
        let revision = Revision {
            id,
            trace: "deleteTag",
            detail: serde_json::json!({ "tag": tag }),
        };
        let remove = |image: &mut Image| {
            let before = image.tags.len();
            image.tags.retain(|kept| kept != tag);
            if image.tags.len() == before {
                return Err(Error::not_found("The image does not have this tag."));
            }
            Ok(())
        };
        self.authorize(call, Action::ImagesGet)?;
        let allowed = self.authorize(call, Action::ImagesUpdate)?;
        let revised = self.revise(call, &allowed, &revision, &remove);
        revised.await.map(drop)
    }

    /// Withholds an image's bytes from all but administrators. Not an error where they are withheld.
    ///
    /// # Errors
    /// NotFound; Forbidden, also for an image that has no bytes.
    pub async fn deactivate_image(&self, call: &Call, id: ImageId) -> Result<()> {
        self.move_image(call, id, "deactivate", ImageStatus::Deactivated)
            .await
    }

    /// Ends what [`Service::deactivate_image`] did. Not an error where the image is active.
    ///
    /// # Errors
    /// As [`Service::deactivate_image`].
    pub async fn reactivate_image(&self, call: &Call, id: ImageId) -> Result<()> {
        self.move_image(call, id, "reactivate", ImageStatus::Active)
            .await
    }

    /// Deletes an image. Its id is never used again; its bytes go once nothing refers to them.
    ///
    /// # Errors
    /// NotFound; Forbidden for another's or a protected image; Conflict where a job is making it.
    pub async fn delete_image(&self, call: &Call, id: ImageId) -> Result<()> {
        let allowed = self.authorize_within(call, Action::ImagesDelete)?;
        let grace = self.settings.deletion_grace;
        let mut race = Race::default();
        loop {
            let image = self.owned_image(&allowed, id).await?;
            race.enter(&image)?;
            if image.protected {
                return Err(Error::forbidden(format!(
                    "Image {id} is protected and cannot be deleted."
                ))
                .with_code(crate::codes::ImsCode::IMG_0028));
            }
            let trail = self.trail(call, "deleteImage", id);
            match self.catalog.delete_image(&image, grace, trail).await {
                Err(error) if error.kind() == ErrorKind::Conflict => race.lose(error),
                outcome => return outcome,
            }
        }
    }

    async fn move_image(
        &self,
        call: &Call,
        id: ImageId,
        verb: &str,
        target: ImageStatus,
    ) -> Result<()> {
        let trace = if target == ImageStatus::Active {
            "reactivateImage"
        } else {
            "deactivateImage"
        };
        let revision = Revision {
            id,
            trace,
            detail: serde_json::json!({}),
        };
        let change = |image: &mut Image| match image.status {
            ImageStatus::Active | ImageStatus::Deactivated => {
                image.status = target;
                Ok(())
            }
            status => Err(Error::forbidden(format!(
                "Not allowed to {verb} image in status '{status}'"
            ))),
        };
        let allowed = self.authorize(call, Action::ImagesUpdate)?;
        let revised = self.revise(call, &allowed, &revision, &change);
        revised.await.map(drop)
    }

    /// Reads, edits and writes an image's record until nobody came in between. What changes nothing writes nothing.
    pub(super) async fn revise(
        &self,
        call: &Call,
        allowed: &Allowed<'_>,
        revision: &Revision,
        edit: &(dyn Fn(&mut Image) -> Result<()> + Sync),
    ) -> Result<Image> {
        let mut race = Race::default();
        loop {
            let image = self.changeable_image(call, allowed, revision.id).await?;
            race.enter(&image)?;
            let mut edited = image.clone();
            edit(&mut edited)?;
            if edited == image {
                return Ok(image);
            }
            edited.updated_at = self.clock.now();
            let detail = revision.detail.clone();
            let trail = Trail {
                event: self.event(call, revision.trace, revision.id, detail),
                answer: None,
            };
            match self.catalog.update_image(&edited, trail).await {
                Err(error) if error.kind() == ErrorKind::Conflict => race.lose(error),
                outcome => return outcome,
            }
        }
    }

    /// A record without anything, in status `queued`.
    pub(super) fn blank_image(&self, id: Option<ImageId>, owner: ProjectId) -> Image {
        let now = self.clock.now();
        Image {
            id: id.unwrap_or_else(|| ImageId::random(self.entropy.as_ref())),
            name: None,
            owner,
            status: ImageStatus::Queued,
            visibility: match self.settings.profile {
                Profile::Calotype => Visibility::Shared,
                Profile::Otc => Visibility::Private,
            },
            disk_format: None,
            container_format: None,
            min_disk: 0,
            min_ram: 0,
            protected: false,
            hidden: false,
            size: None,
            virtual_size: None,
            digests: Digests::default(),
            blob: None,
            wrapped_key: None,
            damaged_at: None,
            cmk_id: None,
            enterprise_project: EnterpriseProjectId::Default,
            properties: BTreeMap::new(),
            tags: Vec::new(),
            created_at: now,
            updated_at: now,
            active_at: None,
            version: 1,
        }
    }
}

/// A change that others may come before. It is tried again only where one of them did.
#[derive(Default)]
struct Race {
    attempts: u32,
    read: Option<i64>,
    lost: Option<Error>,
}

impl Race {
    /// The image as it was read for the next try.
    ///
    /// # Errors
    /// The conflict that ended the last try, where nobody changed the image, or the tries are used up.
    fn enter(&mut self, image: &Image) -> Result<()> {
        let same = self.read.replace(image.version) == Some(image.version);
        self.attempts += 1;
        match self.lost.take() {
            Some(conflict) if same || self.attempts > ATTEMPTS => Err(conflict),
            _ => Ok(()),
        }
    }

    fn lose(&mut self, conflict: Error) {
        self.lost = Some(conflict);
    }
}

/// Which image is revised, and what the audit trail says of it.
pub(super) struct Revision {
    pub(super) id: ImageId,
    pub(super) trace: &'static str,
    pub(super) detail: serde_json::Value,
}

/// The owner of an image to be made: the caller's project, or any for an administrator.
fn owner_of(allowed: &Allowed<'_>, settings: &[Setting]) -> Result<ProjectId> {
    let named = settings.iter().find_map(|setting| match setting {
        Setting::Owner(owner) => Some(owner),
        _ => None,
    });
    match named {
        Some(owner) if allowed.in_all_projects() => Ok(owner.clone()),
        Some(owner) if allowed.principal().project() != Some(owner) => Err(Error::forbidden(
            format!("You are not permitted to create images owned by '{owner}'."),
        )),
        _ => allowed.principal().require_project().cloned(),
    }
}

/// Fills in what OTC does not leave open (spec 2.29).
fn fill_in_as_otc_does(image: &mut Image) {
    image.disk_format.get_or_insert_with(|| "zvhd2".to_owned());
    image
        .container_format
        .get_or_insert_with(|| "bare".to_owned());
    if image.property(OS_VERSION).is_none() {
        let version = DEFAULT_OS_VERSION.to_owned();
        image.properties.insert(OS_VERSION.to_owned(), version);
        os_version::derive(&mut image.properties);
    }
}
