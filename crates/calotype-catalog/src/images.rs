//! Images: making, reading, changing and deleting their rows.
//!
//! A project's usage is changed in the transaction that changes what it counts. A deletion leaves a
//! tombstone, so that the id never returns, and leaves the bytes to the reconciler.

use std::sync::Arc;
use std::time::Duration;

use calotype_core::id::{BlobId, ImageId, ProjectId, StoreName};
use calotype_core::image::{Image, ListedImage, Member, MemberStatus, Visibility};
use calotype_core::ports::{
    BlobFacts, ByteLimit, ImageLimit, Images, MemberLimit, Page, Reservation, SeenImage, Trail,
    Window,
};
use calotype_core::query::{ImageQuery, TagQuery};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::db::{Arg, again_on_contention};
use crate::rows::{
    burn_image, insert_attributes, insert_image_row, is_being_made, load_image, release_blob,
    write_trail,
};
use crate::usage::{Account, holds, lock_usage_and_image, remove_image};

/// The answer where the image that a call names is not there.
pub(crate) fn no_image() -> Error {
    Error::not_found("There is no such image.")
}

#[async_trait::async_trait]
impl Images for SqlCatalog {
    async fn insert_image(&self, image: &Image, limit: ImageLimit, trail: Trail) -> Result<()> {
        again_on_contention!(self.insert_image_once(image, limit, &trail))
    }

    async fn image(&self, id: ImageId, project: Option<&ProjectId>) -> Result<Option<SeenImage>> {
        let sql = format!(
            "select {}, m.status as membership from images i left join image_members m \
             on m.image_id = i.id and m.project = $2 where i.id = $1",
            crate::rows::image_column(self.db.engine())
        );
        let args = vec![Arg::text(id), Arg::opt_text(project)];
        let rows = self.db.fetch_all(sql, args).await?;
        let seen = |row| {
            Ok(SeenImage {
                image: crate::rows::image_of(row)?,
                membership: row.opt_parsed("membership")?,
            })
        };
        rows.first().map(seen).transpose()
    }

    async fn list_images(&self, query: &ImageQuery) -> Result<Vec<Arc<ListedImage>>> {
        crate::list::list_images(&self.db, &self.known, query).await
    }

    async fn tags_of_images(&self, query: &ImageQuery) -> Result<Vec<String>> {
        crate::image_tags::tags_of_images(&self.db, &self.known, query).await
    }

    async fn project_tags(&self, project: &ProjectId) -> Result<Vec<String>> {
        crate::image_tags::project_tags(&self.db, project).await
    }

    async fn find_by_tags(&self, query: &TagQuery, window: Window) -> Result<Page<Image>> {
        crate::image_tags::find_by_tags(&self.db, query, window).await
    }

    async fn update_image(&self, image: &Image, trail: Trail) -> Result<Image> {
        again_on_contention!(self.update_image_once(image, &trail))
    }

    async fn delete_image(&self, image: &Image, grace: Duration, trail: Trail) -> Result<()> {
        again_on_contention!(self.delete_image_once(image, grace, &trail))
    }

    async fn add_member(&self, member: &Member, limit: MemberLimit, trail: Trail) -> Result<()> {
        again_on_contention!(self.add_member_once(member, limit, &trail))
    }

    async fn set_member_status(
        &self,
        image: ImageId,
        project: &ProjectId,
        status: MemberStatus,
        trail: Trail,
    ) -> Result<Option<Member>> {
        again_on_contention!(self.set_member_status_once(image, project, status, &trail))
    }

    async fn remove_member(
        &self,
        image: ImageId,
        project: &ProjectId,
        emptied: Visibility,
        trail: Trail,
    ) -> Result<bool> {
        again_on_contention!(self.remove_member_once(image, project, emptied, &trail))
    }

    async fn members(&self, image: ImageId) -> Result<Vec<Member>> {
        self.members_of(image).await
    }

    async fn begin_upload(
        &self,
        image: ImageId,
        blob: BlobId,
        lease: Duration,
        first: Reservation,
    ) -> Result<(Image, ByteSize)> {
        again_on_contention!(self.begin_upload_once(image, blob, lease, first))
    }

    async fn place_upload(&self, blob: BlobId, store: &StoreName) -> Result<bool> {
        again_on_contention!(self.place_upload_once(blob, store))
    }

    async fn extend_upload(&self, blob: BlobId, lease: Duration) -> Result<bool> {
        again_on_contention!(self.extend_upload_once(blob, lease))
    }

    async fn finish_upload(
        &self,
        image: ImageId,
        blob: BlobId,
        facts: &BlobFacts,
        virtual_size: Option<ByteSize>,
        limit: ByteLimit,
        trail: Trail,
    ) -> Result<Image> {
        again_on_contention!(self.finish_upload_once(
            image,
            blob,
            facts,
            virtual_size,
            limit,
            &trail
        ))
    }

    async fn abort_upload(&self, image: ImageId, blob: BlobId) -> Result<bool> {
        again_on_contention!(self.abort_upload_once(image, blob))
    }
}

impl SqlCatalog {
    async fn insert_image_once(
        &self,
        image: &Image,
        limit: ImageLimit,
        trail: &Trail,
    ) -> Result<()> {
        let mut tx = self.db.write().await?;
        let mut account = Account::open(&mut tx, &image.owner).await?;
        account.add_image(limit)?;
        account.save(&mut tx).await?;
        insert_image_row(&mut tx, image).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await
    }

    async fn update_image_once(&self, image: &Image, trail: &Trail) -> Result<Image> {
        let mut tx = self.db.write().await?;
        let sql = "update images set name = $3, name_key = $4, visibility = $5, disk_format = $6, \
                   container_format = $7, min_disk = $8, min_ram = $9, protected = $10, \
                   hidden = $11, enterprise_project = $12, updated_at = $13, \
                   status = case when status in ('active', 'deactivated') \
                   and $14 in ('active', 'deactivated') then $14 else status end, \
                   version = version + 1 where id = $1 and version = $2";
        let args = vec![
            Arg::text(image.id),
            image.version.into(),
            Arg::opt_text(image.name.as_ref()),
            Arg::text(image.name.as_deref().unwrap_or_default()),
            Arg::text(image.visibility),
            Arg::opt_text(image.disk_format.as_ref()),
            Arg::opt_text(image.container_format.as_ref()),
            i64::from(image.min_disk).into(),
            i64::from(image.min_ram).into(),
            image.protected.into(),
            image.hidden.into(),
            Arg::text(image.enterprise_project),
            Arg::time(trail.event.at),
            Arg::text(image.status),
        ];
        let changed = tx.execute(sql, args).await?;
        let Some(before) = load_image(&mut tx, image.id).await? else {
            return Err(no_image());
        };
        if changed == 0 {
            return Err(changed_meanwhile());
        }
        // Owner and time of creation are the row's own, not what the caller may have made of them.
        let wanted = Image {
            owner: before.owner.clone(),
            created_at: before.created_at,
            ..image.clone()
        };
        for sql in [
            "delete from image_properties where image_id = $1",
            "delete from image_tags where image_id = $1",
        ] {
            tx.execute(sql, vec![Arg::text(image.id)]).await?;
        }
        insert_attributes(&mut tx, &wanted).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        let after = load_image(&mut tx, image.id).await?;
        tx.commit().await?;
        after.ok_or_else(no_image)
    }

    async fn delete_image_once(&self, image: &Image, grace: Duration, trail: &Trail) -> Result<()> {
        let mut tx = self.db.write().await?;
        let Some(row) = lock_usage_and_image(&mut tx, image.id).await? else {
            return Err(no_image());
        };
        if row.version != image.version {
            return Err(changed_meanwhile());
        }
        if is_being_made(&mut tx, image.id).await? {
            return Err(Error::conflict("A job is making this image."));
        }
        let held = match row.blob {
            None => None,
            Some(blob) => {
                let last = !holds(&mut tx, &row.owner, blob, Some(image.id)).await?;
                Some((row.size.unwrap_or_default(), last))
            }
        };
        remove_image(&mut tx, &row.owner, held).await?;
        burn_image(&mut tx, image.id, trail.event.at).await?;
        if let Some(blob) = row.blob {
            let deletable = tx.now().await?.plus(grace);
            release_blob(&mut tx, blob, deletable).await?;
        }
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await
    }
}

fn changed_meanwhile() -> Error {
    Error::conflict("The image was changed by another request; read it again.")
}
