//! What projects have: counted and reserved in the transactions of what is counted.
//!
//! # Consistency
//! A project's usage is the first lock that a transaction takes of those below the keys', so all that change one
//! project's come one after the other, and each reads limits, usage and references as the one before left them.
//!
//! A project holds a blob while one of its images refers to it, or an unfinished replication of its will make one do so.
//! From the first hold to the last it is counted once in `blob_bytes`; each hold is counted in `bytes`. What is being
//! written is counted in `reserved`, by the blob's own row, until it is stored or its writing has ended: also while its
//! image is deleted already.

use calotype_core::Result;
use calotype_core::codes::ImsCode;
use calotype_core::error::Error;
use calotype_core::id::{BlobId, ImageId, ProjectId};
use calotype_core::ports::{
    BlobFacts, ByteLimit, ImageLimit, MemberLimit, OwnLimit, OwnLimits, Reservation, SharedBlobs,
    Usage,
};
use calotype_core::size::ByteSize;

use crate::db::{Arg, Row, Tx};
use crate::rows::{LockedImage, lock_image, mark_stored, one};

/// The most that is counted: what the columns hold.
const MOST: u64 = i64::MAX as u64;

/// A project's usage, locked until the transaction ends, with the limits of its own. It is changed here, and then
/// saved.
pub(crate) struct Account {
    project: ProjectId,
    usage: Usage,
    own: OwnLimits,
}

impl Account {
    /// Locks a project's usage, which is made where there is none.
    pub(crate) async fn open(tx: &mut Tx, project: &ProjectId) -> Result<Self> {
        let sql = "insert into project_usage (project, images, bytes) values ($1, 0, 0) \
                   on conflict (project) do update set images = project_usage.images \
                   returning images, bytes, blob_bytes, reserved";
        let row = tx.fetch_optional(sql, vec![Arg::text(project)]).await?;
        let row = row.ok_or_else(|| Error::internal("a row that was written is not there"))?;
        Ok(Self {
            project: project.clone(),
            usage: usage_of(&row)?,
            // Read under the lock, which who changes them takes too.
            own: own_limits(tx, project).await?,
        })
    }

    /// Counts one more image.
    pub(crate) fn add_image(&mut self, limit: ImageLimit) -> Result<()> {
        let most = self.own.images.or(Some(limit.0)).unwrap_or(MOST);
        if self.usage.images >= most {
            return Err(Error::ims(ImsCode::IMG_0015));
        }
        self.usage.images += 1;
        Ok(())
    }

    /// Counts one more hold on a blob, which may be the project's first. Without a limit nothing is refused.
    pub(crate) fn add_hold(
        &mut self,
        size: ByteSize,
        first: bool,
        limit: Option<ByteLimit>,
    ) -> Result<()> {
        let once = if first { size } else { ByteSize::ZERO };
        if let Some(limit) = limit {
            let pays = match limit.shared {
                SharedBlobs::Once => once,
                SharedBlobs::Each => size,
            };
            if pays > self.room(limit) {
                return Err(ByteLimit::refusal());
            }
        }
        self.usage.bytes = sum(self.usage.bytes, size)?;
        self.usage.blob_bytes = sum(self.usage.blob_bytes, once)?;
        Ok(())
    }

    /// Reserves what is needed and, of what is wanted beyond it, no more than a part of the room: what one takes and
    /// gives back later the others lack meanwhile.
    pub(crate) fn reserve(&mut self, more: Reservation) -> Result<ByteSize> {
        let room = self.room(more.limit);
        if more.needed > room {
            return Err(ByteLimit::refusal());
        }
        let welcome = ByteSize::new(room.bytes() / 16).min(more.wanted);
        let granted = more.needed.max(welcome);
        self.usage.reserved = sum(self.usage.reserved, granted)?;
        Ok(granted)
    }

    fn room(&self, limit: ByteLimit) -> ByteSize {
        room(&self.usage, self.own, limit)
    }

    /// Writes the usage as it was changed.
    pub(crate) async fn save(self, tx: &mut Tx) -> Result<()> {
        let sql = "update project_usage set images = $2, bytes = $3, blob_bytes = $4, reserved = $5 \
                   where project = $1";
        let args = vec![
            Arg::text(&self.project),
            Arg::count(self.usage.images),
            Arg::count(self.usage.bytes.bytes()),
            Arg::count(self.usage.blob_bytes.bytes()),
            Arg::count(self.usage.reserved.bytes()),
        ];
        one(tx.execute(sql, args).await?, "a locked usage is gone")
    }
}

/// The bytes that a project may still be charged for.
pub(crate) fn room(usage: &Usage, own: OwnLimits, limit: ByteLimit) -> ByteSize {
    let configured = limit.configured.map(ByteSize::bytes);
    let most = own.bytes.or(configured).unwrap_or(MOST).min(MOST);
    let taken = usage.charged(limit.shared).bytes() + usage.reserved.bytes();
    ByteSize::new(most.saturating_sub(taken))
}

/// The sum, where the columns hold it.
fn sum(one: ByteSize, other: ByteSize) -> Result<ByteSize> {
    match one.bytes().checked_add(other.bytes()) {
        Some(sum) if sum <= MOST => Ok(ByteSize::new(sum)),
        _ => Err(ByteLimit::refusal()),
    }
}

fn usage_of(row: &Row) -> Result<Usage> {
    let size = |column| row.count(column).map(ByteSize::new);
    Ok(Usage {
        images: row.count("images")?,
        bytes: size("bytes")?,
        blob_bytes: size("blob_bytes")?,
        reserved: size("reserved")?,
    })
}

/// A project's usage, as the transaction sees it.
pub(crate) async fn read_usage(tx: &mut Tx, project: &ProjectId) -> Result<Usage> {
    let sql = "select images, bytes, blob_bytes, reserved from project_usage where project = $1";
    let row = tx.fetch_optional(sql, vec![Arg::text(project)]).await?;
    row.as_ref().map_or(Ok(Usage::default()), usage_of)
}

/// A project's own limits, as the transaction sees them.
pub(crate) async fn own_limits(tx: &mut Tx, project: &ProjectId) -> Result<OwnLimits> {
    let sql = "select images, members, bytes from project_limits where project = $1";
    let row = tx.fetch_optional(sql, vec![Arg::text(project)]).await?;
    let Some(row) = row else {
        return Ok(OwnLimits::default());
    };
    let own = |column| {
        Ok::<_, Error>(match row.opt_count(column)? {
            None => OwnLimit::Configured,
            Some(MOST) => OwnLimit::Unlimited,
            Some(most) => OwnLimit::At(most),
        })
    };
    Ok(OwnLimits {
        images: own("images")?,
        members: own("members")?,
        bytes: own("bytes")?,
    })
}

/// As [`own_limits`] reads it.
pub(crate) fn limit_arg(limit: OwnLimit) -> Arg {
    Arg::Int(match limit {
        OwnLimit::Configured => None,
        OwnLimit::Unlimited => Some(i64::MAX),
        OwnLimit::At(most) => Some(i64::try_from(most).unwrap_or(i64::MAX)),
    })
}

/// Whether a project that is locked holds a stored blob, by another image than this. An image that will share it holds it; who only
/// reads it for an export does not.
pub(crate) async fn holds(
    tx: &mut Tx,
    project: &ProjectId,
    blob: BlobId,
    but: Option<ImageId>,
) -> Result<bool> {
    let sql = "select 1 where exists (select 1 from images i \
               where i.blob = $1 and i.owner = $2 and i.id <> $3) \
               or exists (select 1 from jobs j where j.blob = $1 and j.project = $2 \
               and j.ended_at is null and j.target_blob is null and j.image_id is not null)";
    let args = vec![
        Arg::text(blob),
        Arg::text(project),
        Arg::text(but.map_or_else(String::new, |id| id.to_string())),
    ];
    Ok(tx.fetch_optional(sql, args).await?.is_some())
}

/// Ends the count of an image, and of its hold on a blob of this size, which may be the last. The project is locked.
pub(crate) async fn remove_image(
    tx: &mut Tx,
    project: &ProjectId,
    held: Option<(ByteSize, bool)>,
) -> Result<()> {
    let (size, last) = held.unwrap_or_default();
    let once = if last { size } else { ByteSize::ZERO };
    let sql = "update project_usage set images = images - 1, bytes = bytes - $2, \
               blob_bytes = blob_bytes - $3 where project = $1";
    let args = vec![
        Arg::text(project),
        Arg::count(size.bytes()),
        Arg::count(once.bytes()),
    ];
    let changed = tx.execute(sql, args).await?;
    one(changed, "a project with an image has no usage row")
}

/// Makes a blob that was being written a stored one, which an image of the project will refer to: its reservation ends, and
/// the project pays. False, and nothing changed, where it was not being written.
pub(crate) async fn store_blob(
    tx: &mut Tx,
    project: &ProjectId,
    blob: BlobId,
    facts: &BlobFacts,
    limit: ByteLimit,
) -> Result<bool> {
    let mut account = Account::open(tx, project).await?;
    let Some((_, reserved)) = reservation_of(tx, blob).await? else {
        return Ok(false);
    };
    let left = account.usage.reserved.bytes().checked_sub(reserved.bytes());
    let left = left.ok_or_else(|| Error::internal("a blob's reservation is not its project's"))?;
    account.usage.reserved = ByteSize::new(left);
    // What was reserved is within the limit that there was then.
    let limit = (facts.size > reserved).then_some(limit);
    account.add_hold(facts.size, true, limit)?;
    account.save(tx).await?;
    mark_stored(tx, blob, facts).await
}

/// For whom how much is reserved by a blob that is being written, which is locked; none where it is not.
async fn reservation_of(
    tx: &mut Tx,
    blob: BlobId,
) -> Result<Option<(Option<ProjectId>, ByteSize)>> {
    let sql = "select reserved_for, reserved from blobs where id = $1 and state = 'writing'";
    let row = tx
        .fetch_locked(sql, "for update", vec![Arg::text(blob)])
        .await?;
    row.map(|row| {
        let reserved = ByteSize::new(row.count("reserved")?);
        Ok((row.opt_parsed("reserved_for")?, reserved))
    })
    .transpose()
}

/// Locks the usage of the project that has something reserved for a blob. The project never changes while the blob is
/// being written, so it may be read before.
pub(crate) async fn lock_usage_of_blob(tx: &mut Tx, blob: BlobId) -> Result<Option<ProjectId>> {
    let sql = "select reserved_for from blobs where id = $1 and state = 'writing'";
    let row = tx.fetch_optional(sql, vec![Arg::text(blob)]).await?;
    let project: Option<ProjectId> = row.map_or(Ok(None), |row| row.opt_parsed("reserved_for"))?;
    if let Some(project) = &project {
        lock_usage(tx, project.as_str()).await?;
    }
    Ok(project)
}

/// Ends the reservation of a blob whose writing ends without one. The project's usage is locked.
pub(crate) async fn end_reservation(tx: &mut Tx, blob: BlobId) -> Result<()> {
    let Some((Some(project), reserved)) = reservation_of(tx, blob).await? else {
        return Ok(());
    };
    let sql = "update blobs set reserved_for = null, reserved = 0 where id = $1";
    let changed = tx.execute(sql, vec![Arg::text(blob)]).await?;
    one(changed, "a locked blob is gone")?;
    let sql = "update project_usage set reserved = reserved - $2 where project = $1";
    let args = vec![Arg::text(&project), Arg::count(reserved.bytes())];
    let changed = tx.execute(sql, args).await?;
    one(changed, "a project with a reservation has no usage row")
}

/// Locks the usage of an image's owner, then the image: the order in which all take them.
pub(crate) async fn lock_usage_and_image(tx: &mut Tx, id: ImageId) -> Result<Option<LockedImage>> {
    lock_usage_of_owner(tx, id).await?;
    lock_image(tx, id).await
}

/// Locks the usage of an image's owner. The owner never changes, so it may be read before.
pub(crate) async fn lock_usage_of_owner(tx: &mut Tx, id: ImageId) -> Result<()> {
    let sql = "select project from project_usage where project = (select owner from images where id = $1)";
    let args = vec![Arg::text(id)];
    tx.fetch_locked(sql, "for update", args).await.map(drop)
}

/// The most members that an image of a project may have. The project is locked, as by who changes its limits.
pub(crate) async fn most_members(
    tx: &mut Tx,
    owner: &ProjectId,
    limit: MemberLimit,
) -> Result<u64> {
    let own = own_limits(tx, owner).await?.members;
    let most = own.or(Some(limit.configured)).unwrap_or(MOST);
    Ok(limit.at_most.map_or(most, |at_most| most.min(at_most)))
}

async fn lock_usage(tx: &mut Tx, project: &str) -> Result<()> {
    let sql = "select project from project_usage where project = $1";
    let args = vec![Arg::text(project)];
    tx.fetch_locked(sql, "for update", args).await.map(drop)
}
