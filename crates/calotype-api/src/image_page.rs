//! A page of a list of images: what both APIs' lists show.

use std::sync::Arc;

use calotype_core::app::{Call, Settings};
use calotype_core::id::ImageId;
use calotype_core::image::{Image, ListedImage};
use calotype_core::{Error, Result};

use crate::image_document::ImageDocument;
use crate::list_query::Listing;
use crate::state::ApiState;

/// A page.
pub(crate) struct Page {
    images: Vec<Arc<ListedImage>>,
    /// The last image where the page is full: there may be more behind it.
    pub(crate) last: Option<ImageId>,
}

impl Page {
    /// The page that is asked for, as the caller sees it.
    ///
    /// # Errors
    /// Forbidden (IMG.0026); NotFound where the marker is no image.
    pub(crate) async fn read(state: &ApiState, call: &Call, listing: Listing) -> Result<Self> {
        let limit = listing.limit as usize;
        let images = state
            .service
            .list_images(call, |viewer| listing.seen_by(viewer))
            .await?;
        let full = images.len() == limit;
        let last = images.last().filter(|_| full).map(|image| image.id);
        Ok(Self { images, last })
    }

    /// The images.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().map(|image| &***image)
    }

    /// The page as a JSON object with nothing but `images`.
    ///
    /// # Errors
    /// Internal.
    pub(crate) fn json(&self, settings: &Settings) -> Result<String> {
        let mut text = r#"{"images":["#.to_owned();
        for (number, image) in self.images.iter().enumerate() {
            let document = image.document(|image| {
                serde_json::to_string(&ImageDocument::new(image, settings)).map_err(Error::internal)
            })?;
            if number == 0 {
                // They are alike as a rule.
                text.reserve(self.images.len() * (document.len() + 64));
            } else {
                text.push(',');
            }
            text.push_str(document);
        }
        text.push_str("]}");
        Ok(text)
    }

    /// The images' documents.
    pub(crate) fn documents<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = ImageDocument<'a>> {
        self.images()
            .map(|image| ImageDocument::new(image, settings))
    }
}
