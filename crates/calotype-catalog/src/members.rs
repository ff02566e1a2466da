//! Members: the projects that an image is shared with.

use calotype_core::Result;
use calotype_core::codes::ImsCode;
use calotype_core::error::Error;
use calotype_core::id::{ImageId, ProjectId};
use calotype_core::image::{Member, MemberStatus, Visibility};
use calotype_core::ports::{MemberLimit, Trail};
use calotype_core::time::Timestamp;

use crate::SqlCatalog;
use crate::db::{Arg, Row, Tx};
use crate::images::no_image;
use crate::rows::{lock_image, write_trail};
use crate::usage::{lock_usage_and_image, most_members};

const COLUMNS: &str = "image_id, project, status, created_at, updated_at";

fn member_of(row: &Row) -> Result<Member> {
    Ok(Member {
        image: row.parsed("image_id")?,
        project: row.parsed("project")?,
        status: row.parsed("status")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

impl SqlCatalog {
    pub(crate) async fn add_member_once(
        &self,
        member: &Member,
        limit: MemberLimit,
        trail: &Trail,
    ) -> Result<()> {
        let mut tx = self.db.write().await?;
        // The image's lock makes those who add members at once count one after the other; who changes the limit takes the
        // usage's.
        let Some(image) = lock_usage_and_image(&mut tx, member.image).await? else {
            return Err(no_image());
        };
        if image.visibility == Visibility::Private {
            // Whom it was shared with before it became private is not asked for now.
            let sql = "delete from image_members where image_id = $1";
            tx.execute(sql, vec![Arg::text(member.image)]).await?;
        }
        let sql = "select count(*) as members, \
                   coalesce(sum(case when project = $2 then 1 else 0 end), 0) as taken \
                   from image_members where image_id = $1";
        let args = vec![Arg::text(member.image), Arg::text(&member.project)];
        let Some(row) = tx.fetch_optional(sql, args).await? else {
            return Err(Error::internal("a count without a row"));
        };
        if row.int("taken")? > 0 {
            return Err(Error::conflict(
                "The project is a member of the image already.",
            ));
        }
        if row.count("members")? >= most_members(&mut tx, &image.owner, limit).await? {
            return Err(Error::ims(ImsCode::IMG_0088));
        }
        let (id, at) = (member.image, member.created_at);
        insert_member(&mut tx, id, image.created_at, &member.project, at).await?;
        if image.visibility == Visibility::Private {
            show_to_members(&mut tx, id, at).await?;
        }
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await
    }

    pub(crate) async fn set_member_status_once(
        &self,
        image: ImageId,
        project: &ProjectId,
        status: MemberStatus,
        trail: &Trail,
    ) -> Result<Option<Member>> {
        let mut tx = self.db.write().await?;
        let sql = format!(
            "update image_members set status = $3, updated_at = $4 \
             where image_id = $1 and project = $2 returning {COLUMNS}"
        );
        let args = vec![
            Arg::text(image),
            Arg::text(project),
            Arg::text(status),
            Arg::time(trail.event.at),
        ];
        let Some(row) = tx.fetch_optional(sql, args).await? else {
            return Ok(None);
        };
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await?;
        member_of(&row).map(Some)
    }

    pub(crate) async fn remove_member_once(
        &self,
        image: ImageId,
        project: &ProjectId,
        emptied: Visibility,
        trail: &Trail,
    ) -> Result<bool> {
        let mut tx = self.db.write().await?;
        lock_image(&mut tx, image).await?;
        let sql = "delete from image_members where image_id = $1 and project = $2";
        let args = vec![Arg::text(image), Arg::text(project)];
        if tx.execute(sql, args).await? == 0 {
            return Ok(false);
        }
        if emptied == Visibility::Private {
            leave_private_if_empty(&mut tx, image, trail.event.at).await?;
        }
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(crate) async fn members_of(&self, image: ImageId) -> Result<Vec<Member>> {
        let mut tx = self.db.read().await?;
        let sql =
            format!("select {COLUMNS} from image_members where image_id = $1 order by project");
        let rows = tx.fetch_all(sql, vec![Arg::text(image)]).await?;
        rows.iter().map(member_of).collect()
    }
}

/// How many members an image has.
pub(crate) async fn count_members(tx: &mut Tx, image: ImageId) -> Result<u64> {
    let sql = "select count(*) as members from image_members where image_id = $1";
    let row = tx.fetch_optional(sql, vec![Arg::text(image)]).await?;
    row.map_or(Ok(0), |row| row.count("members"))
}

/// Makes a project a member that has yet to answer. The image is locked.
pub(crate) async fn insert_member(
    tx: &mut Tx,
    image: ImageId,
    image_created_at: Timestamp,
    project: &ProjectId,
    at: Timestamp,
) -> Result<()> {
    let sql = "insert into image_members \
               (image_id, project, status, created_at, updated_at, image_created_at) \
               values ($1, $2, $3, $4, $4, $5)";
    let args = vec![
        Arg::text(image),
        Arg::text(project),
        Arg::text(MemberStatus::Pending),
        Arg::time(at),
        Arg::time(image_created_at),
    ];
    tx.execute(sql, args).await.map(drop)
}

/// Makes a private image, which is locked, a shared one.
pub(crate) async fn show_to_members(tx: &mut Tx, image: ImageId, at: Timestamp) -> Result<()> {
    let sql = "update images set visibility = 'shared', updated_at = $2, version = version + 1 \
               where id = $1 and visibility = 'private'";
    tx.execute(sql, vec![Arg::text(image), Arg::time(at)])
        .await
        .map(drop)
}

/// Makes a shared image, which is locked, a private one if it has no members.
pub(crate) async fn leave_private_if_empty(
    tx: &mut Tx,
    image: ImageId,
    at: Timestamp,
) -> Result<()> {
    let sql = "update images set visibility = 'private', updated_at = $2, version = version + 1 \
               where id = $1 and visibility = 'shared' \
               and not exists (select 1 from image_members where image_id = $1)";
    tx.execute(sql, vec![Arg::text(image), Arg::time(at)])
        .await
        .map(drop)
}
