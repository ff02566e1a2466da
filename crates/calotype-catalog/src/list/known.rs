//! What lists know from before. Of images as they were read then: of a page, what has not changed is not read again.
//!
//! An image's row holds a *stamp* that is another one after each change of what [`Image`] shows: its version, which every change
//! of its record, properties and tags raises; the time of that change, by which a version that a failed-over database lost and
//! made again is told apart; and when its bytes were found damaged, which is no change of the record. To read a stamp costs
//! little of what an image with its properties and tags does.
//!
//! The stamps come with the page, from the database, so what is kept here is never older than what a list without it would show.

use std::sync::Arc;
use std::time::Duration;

use calotype_core::id::{ImageId, ProjectId};
use calotype_core::image::{Image, ListedImage};
use calotype_core::query::ImageQuery;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use moka::sync::Cache;

use super::{PageKeys, page_of, stamps_statement, start_of, statement};
use crate::db::{Arg, Db};
use crate::rows::{image_column, image_of, placeholders};

/// An image's stamp as a column of a page's statement, over `images i`: a text without a comma, which [`Stamp::parse`] reads.
pub(super) const STAMPS: &str = ", i.id || ' ' || i.version || ' ' || i.updated_at || ' ' || coalesce(i.damaged_at, 0) as stamp";

/// Which image, and which state of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) id: ImageId,
    version: i64,
    updated_at: i64,
    damaged_at: i64,
}

impl Stamp {
    /// Reads a stamp as [`STAMPS`] has it.
    ///
    /// # Errors
    /// Internal where it is none.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut words = text.split(' ');
        let mut next = || {
            words
                .next()
                .ok_or_else(|| Error::internal("a stamp is too short"))
        };
        let id = next()?.parse().map_err(Error::internal)?;
        let mut number = || next()?.parse().map_err(Error::internal);
        Ok(Self {
            id,
            version: number()?,
            updated_at: number()?,
            damaged_at: number()?,
        })
    }

    pub(super) fn of(image: &Image) -> Self {
        Self {
            id: image.id,
            version: image.version,
            updated_at: image.updated_at.as_micros(),
            damaged_at: image.damaged_at.map_or(0, Timestamp::as_micros),
        }
    }
}

/// The most memory that known images may take, in bytes: some ten thousand of them.
const ROOM: u64 = 32 << 20;

/// What lists need not ask again.
pub(crate) struct KnownImages {
    /// The images that they showed last and most often.
    images: Cache<ImageId, Arc<ListedImage>>,
    /// The last time since which many of a project's images were found changed. Since any earlier time there are as many, and
    /// it stays so until images are deleted.
    changed_many: Cache<ProjectId, Timestamp>,
}

impl KnownImages {
    pub(crate) fn new() -> Self {
        let images = Cache::builder().max_capacity(ROOM);
        let changed_many = Cache::builder().max_capacity(1000);
        Self {
            images: images
                .weigher(|_, image: &Arc<ListedImage>| weight(image))
                .build(),
            changed_many: changed_many.time_to_live(Duration::from_secs(60)).build(),
        }
    }

    /// Whether many of a project's images were found changed since this time, a minute ago at most.
    pub(super) fn changed_many(&self, project: &ProjectId, since: Timestamp) -> bool {
        let found = self.changed_many.get(project);
        found.is_some_and(|last| since <= last)
    }

    /// Notes that many of a project's images have changed since this time.
    pub(super) fn note_changed_many(&self, project: &ProjectId, since: Timestamp) {
        self.changed_many.insert(project.clone(), since);
    }

    /// The image, where it is known as it is now.
    pub(super) fn get(&self, stamp: Stamp) -> Option<Arc<ListedImage>> {
        let known = self.images.get(&stamp.id)?;
        (Stamp::of(&known) == stamp).then_some(known)
    }

    /// Notes an image as it was read.
    pub(super) fn add(&self, image: Image) -> Arc<ListedImage> {
        let image = Arc::new(ListedImage::from(image));
        self.images.insert(image.id, Arc::clone(&image));
        image
    }
}

/// Bytes of memory, about: what is always there, the texts, which are in its document once more, and what an allocation of each
/// costs.
fn weight(image: &Image) -> u32 {
    const TEXT: usize = size_of::<String>() + 16;
    let properties = image.properties.iter();
    let properties: usize = properties
        .map(|(name, value)| 2 * (TEXT + name.len() + value.len()))
        .sum();
    let tags: usize = image.tags.iter().map(|tag| TEXT + 2 * tag.len()).sum();
    let name = image.name.as_ref().map_or(0, String::len);
    // Its digests, its entry here, and what is in every document.
    let rest = size_of::<ListedImage>() + 2048;
    u32::try_from(rest + 2 * name + properties + tags).unwrap_or(u32::MAX)
}

/// A page of images, with their properties and tags.
pub(crate) async fn list_images(
    db: &Db,
    known: &KnownImages,
    query: &ImageQuery,
) -> Result<Vec<Arc<ListedImage>>> {
    let start = start_of(db, known, query).await?;
    let Some(page) = page_of(query, start, STAMPS) else {
        return Ok(Vec::new());
    };
    let stamps = stamps_of(db, query, &page).await?;
    let mut images: Vec<Option<Arc<ListedImage>>> =
        stamps.iter().map(|stamp| known.get(*stamp)).collect();
    let unknown = stamps
        .iter()
        .zip(&images)
        .filter(|(_, image)| image.is_none());
    let unknown: Vec<ImageId> = unknown.map(|(stamp, _)| stamp.id).collect();
    if unknown.len() <= FEW_UNKNOWN {
        let read = read_few(db, &unknown).await?.into_iter();
        let read: Vec<Arc<ListedImage>> = read.map(|image| known.add(image)).collect();
        for (image, stamp) in images.iter_mut().zip(&stamps) {
            let found = || {
                read.iter()
                    .find(|image| Stamp::of(image) == *stamp)
                    .cloned()
            };
            *image = image.take().or_else(found);
        }
        if let Some(images) = images.into_iter().collect() {
            return Ok(images);
        }
        // One was changed since its stamp was read. A page shows one state of all its images.
    }
    let (sql, args) = statement(query, page, db.engine());
    let rows = db.fetch_all(sql, args).await?;
    let images = rows.iter().map(image_of);
    images.map(|image| Ok(known.add(image?))).collect()
}

/// Images that are read by their ids rather than with their page.
const FEW_UNKNOWN: usize = 32;

/// The stamps of a page's images, in its order.
async fn stamps_of(db: &Db, query: &ImageQuery, page: &PageKeys) -> Result<Vec<Stamp>> {
    let sql = stamps_statement(query, page);
    let rows = db.fetch_all(sql, page.text.args.clone()).await?;
    let stamps = rows.first().map(|row| row.opt_text("stamps")).transpose()?;
    let stamps = stamps.flatten().unwrap_or_default();
    let stamps = stamps.split(',').filter(|stamp| !stamp.is_empty());
    stamps.map(Stamp::parse).collect()
}

/// Images by their ids, of which there are at most [`FEW_UNKNOWN`], in no order.
async fn read_few(db: &Db, ids: &[ImageId]) -> Result<Vec<Image>> {
    let Some(last) = ids.last() else {
        return Ok(Vec::new());
    };
    let column = image_column(db.engine());
    let names = placeholders(1, FEW_UNKNOWN);
    let sql = format!("select {column} from images i where i.id in ({names})");
    // One text of the statement, whatever their number.
    let ids = ids.iter().chain(std::iter::repeat(last));
    let args = ids.take(FEW_UNKNOWN).map(Arg::text).collect();
    let rows = db.fetch_all(sql, args).await?;
    rows.iter().map(image_of).collect()
}
