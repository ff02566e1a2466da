//! Tags as the IMS API sets and finds them (spec 2.9 to 2.16, 6.1).
//!
//! Setting a tag replaces whatever the image has under its key, in one change of the record. The tags of a shared image
//! are its owner's: recipients read them.

use std::collections::BTreeMap;

use crate::access::{Action, Allowed};
use crate::app::images::Revision;
use crate::app::{Call, Service};
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{ImageId, ProjectId};
use crate::image::Image;
use crate::image_tag::{Tag, check_distinct_keys};
use crate::ports::{Page, Window};
use crate::query::{ImageQuery, TagQuery, Viewer};

impl Service {
    /// Gives an image tags, in the place of those that it has under their keys. In any state of the image.
    ///
    /// # Errors
    /// IMG.0026; IMG.0115 where a key comes twice; IMG.0027, 0083, 0047; IMG.0116 where the image would have more tags
    /// than it may have, and more than it has.
    pub async fn set_image_tags(&self, call: &Call, id: ImageId, tags: &[Tag]) -> Result<()> {
        check_distinct_keys(tags)?;
        let texts: Vec<String> = tags.iter().map(Tag::to_string).collect();
        let revision = Revision {
            id,
            trace: "addTag",
            detail: serde_json::json!({ "tags": texts }),
        };
        let set = |image: &mut Image| {
            let before = image.tags.len();
            image
                .tags
                .retain(|text| tags.iter().all(|tag| tag.key() != Tag::of(text).key()));
            image.tags.extend(texts.iter().cloned());
            image.tags.sort_unstable();
            let most = self.settings.limits.ims_tags_per_image;
            if image.tags.len() > most.max(before) {
                return Err(Error::ims(ImsCode::IMG_0116));
            }
            Ok(())
        };
        let allowed = self.authorize(call, Action::ImagesUpdate)?;
        let revised = self.revise(call, &allowed, &revision, &set);
        revised.await.map(drop)
    }

    /// Takes tags from an image, by their keys. Those that it does not have are passed over.
    ///
    /// # Errors
    /// IMG.0026, 0027, 0083, 0047.
    pub async fn remove_image_tags(&self, call: &Call, id: ImageId, keys: &[String]) -> Result<()> {
        let remove = |image: &mut Image| {
            drop_keys(image, keys);
            Ok(())
        };
        let allowed = self.authorize(call, Action::ImagesUpdate)?;
        let revision = removal(id, keys);
        let revised = self.revise(call, &allowed, &revision, &remove);
        revised.await.map(drop)
    }

    /// Takes a tag from an image, by its key.
    ///
    /// # Errors
    /// As [`Service::remove_image_tags`]; NotFound (IMG.0121) where the image does not have it.
    pub async fn remove_image_tag(&self, call: &Call, id: ImageId, key: &str) -> Result<()> {
        let keys = [key.to_owned()];
        let remove = |image: &mut Image| {
            if drop_keys(image, &keys) {
                return Ok(());
            }
            Err(Error::not_found("The image does not have this tag.").with_code(ImsCode::IMG_0121))
        };
        let allowed = self.authorize(call, Action::ImagesUpdate)?;
        let revision = removal(id, &keys);
        let revised = self.revise(call, &allowed, &revision, &remove);
        revised.await.map(drop)
    }

    /// The tags of an image that the caller may see, by key.
    ///
    /// # Errors
    /// IMG.0026, IMG.0027.
    pub async fn image_tags(&self, call: &Call, id: ImageId) -> Result<Vec<Tag>> {
        let allowed = self.authorize(call, Action::ImagesList)?;
        let image = self.seen_image(&allowed, id).await?.image;
        let mut tags: Vec<Tag> = image.tags.iter().map(|text| Tag::of(text)).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// The keys of the tags of a project's images, each with its values.
    ///
    /// # Errors
    /// IMG.0026; IMG.0030 for another project than the caller's.
    pub async fn project_tags(
        &self,
        call: &Call,
        project: &ProjectId,
    ) -> Result<BTreeMap<String, Vec<String>>> {
        let allowed = self.authorize(call, Action::ImagesList)?;
        check_is_own(&allowed, project)?;
        let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in self.catalog.project_tags(project).await? {
            let tag = Tag::of(&text);
            let values = tags.entry(tag.key().to_owned()).or_default();
            if !values.iter().any(|value| value == tag.value()) {
                values.push(tag.value().to_owned());
            }
        }
        Ok(tags)
    }

    /// The first tags, by their texts, of the images that a list finds: at most as many as the list's limit says, which
    /// counts tags here.
    ///
    /// # Errors
    /// IMG.0026; NotFound where the marker is no image that the caller may see.
    pub async fn tags_of_images(
        &self,
        call: &Call,
        query: impl FnOnce(Viewer) -> ImageQuery,
    ) -> Result<Vec<String>> {
        let allowed = self.authorize(call, Action::ImagesList)?;
        let query = self.seen_query(&allowed, query).await?;
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        self.catalog.tags_of_images(&query).await
    }

    /// A part of a project's images that meet what is asked of their tags, newest first, and how many there are.
    ///
    /// # Errors
    /// As [`Service::project_tags`].
    pub async fn find_by_tags(
        &self,
        call: &Call,
        query: &TagQuery,
        window: Window,
    ) -> Result<Page<Image>> {
        let allowed = self.authorize(call, Action::ImagesList)?;
        check_is_own(&allowed, &query.owner)?;
        self.catalog.find_by_tags(query, window).await
    }
}

fn removal(id: ImageId, keys: &[String]) -> Revision {
    Revision {
        id,
        trace: "deleteTag",
        detail: serde_json::json!({ "keys": keys }),
    }
}

/// Whether there was one of them.
fn drop_keys(image: &mut Image, keys: &[String]) -> bool {
    let before = image.tags.len();
    image
        .tags
        .retain(|text| keys.iter().all(|key| key != Tag::of(text).key()));
    image.tags.len() < before
}

fn check_is_own(allowed: &Allowed<'_>, project: &ProjectId) -> Result<()> {
    if allowed.in_all_projects() || allowed.principal().project() == Some(project) {
        return Ok(());
    }
    Err(Error::ims(ImsCode::IMG_0030))
}
