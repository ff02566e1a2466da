//! A page of a list of images: what both APIs' lists show.

use calotype_core::Result;
use calotype_core::app::{Call, Settings};
use calotype_core::id::ImageId;
use calotype_core::image::Image;

use crate::image_document::ImageDocument;
use crate::list_query::Listing;
use crate::state::ApiState;

/// A page.
pub(crate) struct Page {
    pub(crate) images: Vec<Image>,
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

    /// The images' documents.
    pub(crate) fn documents<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = ImageDocument<'a>> {
        self.images
            .iter()
            .map(|image| ImageDocument::new(image, settings))
    }
}
