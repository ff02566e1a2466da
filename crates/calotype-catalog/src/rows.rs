//! Between rows and the domain's types, and the steps that many transactions share.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use calotype_core::id::{BlobId, EnterpriseProjectId, ImageId, KeyId, ProjectId};
use calotype_core::image::{Digests, Image, ImageStatus, Visibility};
use calotype_core::ports::{BlobFacts, StoredAnswer, Trail};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::db::{Arg, Engine, Row, Tx};

/// What [`image_of`] reads, of the table `images` under the name `i`: one column, `image`. Properties and tags come with
/// the row, so that one statement shows one state of the image.
///
/// It is one JSON array, the fields of [`ImageColumn`] in their order: to hand a column over costs more than most have in
/// them.
pub(crate) fn image_column(engine: Engine) -> String {
    let (array, object, collect) = match engine {
        Engine::Sqlite => ("json_array", "json_group_object", "json_group_array"),
        Engine::Postgres => ("json_build_array", "json_object_agg", "json_agg"),
    };
    format!(
        "cast({array}(i.id, i.owner, i.status, i.visibility, i.name, i.disk_format, i.container_format, \
         i.min_disk, i.min_ram, \
         cast(i.protected as integer), cast(i.hidden as integer), i.size, i.virtual_size, i.md5, i.sha256, i.sha512, \
         i.blob, i.cmk_id, i.wrapped_key, i.damaged_at, i.enterprise_project, i.created_at, i.updated_at, \
         i.active_at, i.version, \
         (select {object}(p.name, p.value) from image_properties p where p.image_id = i.id), \
         (select {collect}(t.tag) from image_tags t where t.image_id = i.id)) as text) as image"
    )
}

#[derive(Deserialize)]
struct ImageColumn {
    id: Parsed<ImageId>,
    owner: Parsed<ProjectId>,
    status: Parsed<ImageStatus>,
    visibility: Parsed<Visibility>,
    name: Option<String>,
    disk_format: Option<String>,
    container_format: Option<String>,
    min_disk: u32,
    min_ram: u32,
    protected: u8,
    hidden: u8,
    size: Option<u64>,
    virtual_size: Option<u64>,
    md5: Option<String>,
    sha256: Option<String>,
    sha512: Option<String>,
    blob: Option<Parsed<BlobId>>,
    cmk_id: Option<Parsed<KeyId>>,
    wrapped_key: Option<String>,
    damaged_at: Option<i64>,
    enterprise_project: Parsed<EnterpriseProjectId>,
    created_at: i64,
    updated_at: i64,
    active_at: Option<i64>,
    version: i64,
    // PostgreSQL collects nothing into null.
    properties: Option<BTreeMap<String, String>>,
    tags: Option<Vec<String>>,
}

/// A text that is parsed again into what it was written from.
struct Parsed<T>(T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);
        impl<T: FromStr<Err: Display>> Visitor<'_> for Text<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<T, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text(PhantomData)).map(Self)
    }
}

/// An image.
pub(crate) fn image_of(row: &Row) -> Result<Image> {
    let column: ImageColumn = serde_json::from_str(&row.text("image")?).map_err(Error::internal)?;
    let wrapped_key = column.wrapped_key.as_deref().map(serde_json::from_str);
    let mut tags = column.tags.unwrap_or_default();
    // The engines give them in an order of their own.
    tags.sort_unstable();
    Ok(Image {
        id: column.id.0,
        name: column.name,
        owner: column.owner.0,
        status: column.status.0,
        visibility: column.visibility.0,
        disk_format: column.disk_format,
        container_format: column.container_format,
        min_disk: column.min_disk,
        min_ram: column.min_ram,
        protected: column.protected == 1,
        hidden: column.hidden == 1,
        size: column.size.map(ByteSize::new),
        virtual_size: column.virtual_size.map(ByteSize::new),
        digests: Digests {
            md5: column.md5,
            sha256: column.sha256,
            sha512: column.sha512,
        },
        blob: column.blob.map(|blob| blob.0),
        wrapped_key: wrapped_key.transpose().map_err(Error::internal)?,
        damaged_at: column.damaged_at.map(Timestamp::from_micros),
        cmk_id: column.cmk_id.map(|key| key.0),
        enterprise_project: column.enterprise_project.0,
        properties: column.properties.unwrap_or_default(),
        tags,
        created_at: Timestamp::from_micros(column.created_at),
        updated_at: Timestamp::from_micros(column.updated_at),
        active_at: column.active_at.map(Timestamp::from_micros),
        version: column.version,
    })
}

pub(crate) fn digests_of(row: &Row) -> Result<Digests> {
    Ok(Digests {
        md5: row.opt_text("md5")?,
        sha256: row.opt_text("sha256")?,
        sha512: row.opt_text("sha512")?,
    })
}

/// `$first, $first+1, ...`: so many placeholders.
pub(crate) fn placeholders(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    names.join(", ")
}

/// An image as it is now.
pub(crate) async fn load_image(tx: &mut Tx, id: ImageId) -> Result<Option<Image>> {
    let column = image_column(tx.engine());
    let sql = format!("select {column} from images i where i.id = $1");
    let row = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
    row.as_ref().map(image_of).transpose()
}

/// Where an image that is not its owner's alone is found by others: what `shelf` columns hold.
fn shelf_of(visibility: Visibility) -> Option<Visibility> {
    matches!(visibility, Visibility::Public | Visibility::Community).then_some(visibility)
}

/// Writes an image's row, its properties and its tags.
pub(crate) async fn insert_image_row(tx: &mut Tx, image: &Image) -> Result<()> {
    let sql = format!(
        "insert into images (id, owner, status, visibility, name, name_key, disk_format, \
         container_format, min_disk, min_ram, protected, hidden, size, virtual_size, md5, sha256, \
         sha512, blob, cmk_id, enterprise_project, created_at, updated_at, active_at, version) \
         values ({})",
        placeholders(1, 24)
    );
    let args = vec![
        Arg::text(image.id),
        Arg::text(&image.owner),
        Arg::text(image.status),
        Arg::text(image.visibility),
        Arg::opt_text(image.name.as_ref()),
        Arg::text(image.name.as_deref().unwrap_or_default()),
        Arg::opt_text(image.disk_format.as_ref()),
        Arg::opt_text(image.container_format.as_ref()),
        i64::from(image.min_disk).into(),
        i64::from(image.min_ram).into(),
        image.protected.into(),
        image.hidden.into(),
        size_arg(image.size)?,
        size_arg(image.virtual_size)?,
        Arg::opt_text(image.digests.md5.as_ref()),
        Arg::opt_text(image.digests.sha256.as_ref()),
        Arg::opt_text(image.digests.sha512.as_ref()),
        Arg::opt_text(image.blob),
        Arg::opt_text(image.cmk_id.as_ref()),
        Arg::text(image.enterprise_project),
        Arg::time(image.created_at),
        Arg::time(image.updated_at),
        Arg::opt_time(image.active_at),
        image.version.into(),
    ];
    let taken = |error: Error| match error.kind() {
        calotype_core::ErrorKind::Conflict => {
            Error::conflict("An image with this id exists already.").with_context(error)
        }
        _ => error,
    };
    tx.execute(sql, args).await.map_err(taken)?;
    // Asked only now: an insert that waited for a deletion of the same id to commit sees its tombstone.
    let sql = "select id from burnt_image_ids where id = $1";
    if tx
        .fetch_optional(sql, vec![Arg::text(image.id)])
        .await?
        .is_some()
    {
        return Err(Error::conflict(
            "An image with this id existed; ids are never used again.",
        ));
    }
    insert_attributes(tx, image).await
}

/// Writes the properties and tags of an image that has none in the catalog.
pub(crate) async fn insert_attributes(tx: &mut Tx, image: &Image) -> Result<()> {
    let shelf = Arg::opt_text(shelf_of(image.visibility));
    let properties: Vec<(&String, &String)> = image.properties.iter().collect();
    for chunk in properties.chunks(64) {
        let mut args = common_args(image, &shelf);
        let mut tuples = Vec::with_capacity(chunk.len());
        for (name, value) in chunk {
            let n = args.len();
            tuples.push(format!("($1, ${}, ${}, $2, $3, $4)", n + 1, n + 2));
            args.push(Arg::text(name));
            args.push(Arg::text(value));
        }
        let sql = format!(
            "insert into image_properties (image_id, name, value, owner, shelf, created_at) values {}",
            tuples.join(", ")
        );
        tx.execute(sql, args).await?;
    }
    for chunk in image.tags.chunks(64) {
        let mut args = common_args(image, &shelf);
        let mut tuples = Vec::with_capacity(chunk.len());
        for tag in chunk {
            tuples.push(format!("($1, ${}, $2, $3, $4)", args.len() + 1));
            args.push(Arg::text(tag));
        }
        let sql = format!(
            "insert into image_tags (image_id, tag, owner, shelf, created_at) values {} \
             on conflict do nothing",
            tuples.join(", ")
        );
        tx.execute(sql, args).await?;
    }
    Ok(())
}

fn common_args(image: &Image, shelf: &Arg) -> Vec<Arg> {
    vec![
        Arg::text(image.id),
        Arg::text(&image.owner),
        shelf.clone(),
        Arg::time(image.created_at),
    ]
}

/// A size, which must fit the column: no usage may be counted wrong.
pub(crate) fn size_arg(size: Option<ByteSize>) -> Result<Arg> {
    let narrow = |size: ByteSize| {
        i64::try_from(size.bytes()).map_err(|_| Error::invalid("The size is out of range."))
    };
    Ok(Arg::Int(size.map(narrow).transpose()?))
}

/// A fault of ours where a statement did not change the one row that must be there.
pub(crate) fn one(changed: u64, what: &'static str) -> Result<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::internal(what))
    }
}

/// Removes an image's row and burns its id. The usage is locked, the blob is not touched.
pub(crate) async fn burn_image(tx: &mut Tx, id: ImageId, at: Timestamp) -> Result<()> {
    let sql = "insert into burnt_image_ids (id, burnt_at) values ($1, $2)";
    tx.execute(sql, vec![Arg::text(id), Arg::time(at)]).await?;
    let sql = "delete from images where id = $1";
    let changed = tx.execute(sql, vec![Arg::text(id)]).await?;
    one(changed, "an image went while its row was locked")
}

/// Makes a blob deletable from `at` on if no image refers to it any more. A job that holds it keeps it
/// all the same: [`calotype_core::ports::Reconcile::claim_deletion`] asks for jobs too.
pub(crate) async fn release_blob(tx: &mut Tx, blob: BlobId, at: Timestamp) -> Result<()> {
    // Locked first: of two that release their images' shared blob at once, the second sees the first's.
    let sql = "select id from blobs where id = $1";
    tx.fetch_locked(sql, "for update", vec![Arg::text(blob)])
        .await?;
    let sql = "update blobs set deletable_at = $2 where id = $1 and state = 'stored' \
               and not exists (select 1 from images where blob = $1)";
    tx.execute(sql, vec![Arg::text(blob), Arg::time(at)])
        .await?;
    Ok(())
}

/// Makes a blob that was being written a stored one, without a reservation. False where it was not being written.
pub(crate) async fn mark_stored(tx: &mut Tx, blob: BlobId, facts: &BlobFacts) -> Result<bool> {
    let sql = "update blobs set state = 'stored', size = $2, stored = $3, md5 = $4, \
               sha256 = $5, sha512 = $6, lease_expires = null, deletable_at = null, \
               reserved_for = null, reserved = 0, scrubbed_at = $7 \
               where id = $1 and state = 'writing'";
    let now = Arg::time(tx.now().await?);
    let args = vec![
        Arg::text(blob),
        size_arg(Some(facts.size))?,
        size_arg(Some(facts.stored))?,
        Arg::opt_text(facts.digests.md5.as_ref()),
        Arg::opt_text(facts.digests.sha256.as_ref()),
        Arg::opt_text(facts.digests.sha512.as_ref()),
        now,
    ];
    Ok(tx.execute(sql, args).await? == 1)
}

/// What locking an image's row tells.
pub(crate) struct LockedImage {
    pub(crate) owner: ProjectId,
    pub(crate) status: ImageStatus,
    pub(crate) visibility: Visibility,
    pub(crate) version: i64,
    pub(crate) size: Option<ByteSize>,
    pub(crate) blob: Option<BlobId>,
    pub(crate) uploading_blob: Option<BlobId>,
    pub(crate) created_at: Timestamp,
}

/// Locks an image's row until the transaction ends.
pub(crate) async fn lock_image(tx: &mut Tx, id: ImageId) -> Result<Option<LockedImage>> {
    let sql = "select owner, status, visibility, version, size, blob, uploading_blob, created_at \
               from images where id = $1";
    let row = tx
        .fetch_locked(sql, "for update", vec![Arg::text(id)])
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(LockedImage {
        owner: row.parsed("owner")?,
        status: row.parsed("status")?,
        visibility: row.parsed("visibility")?,
        version: row.int("version")?,
        size: row.opt_count("size")?.map(ByteSize::new),
        blob: row.opt_parsed("blob")?,
        uploading_blob: row.opt_parsed("uploading_blob")?,
        created_at: row.time("created_at")?,
    }))
}

/// Whether an unfinished job is making the image.
pub(crate) async fn is_being_made(tx: &mut Tx, id: ImageId) -> Result<bool> {
    let sql = "select id from jobs where image_id = $1 and ended_at is null";
    Ok(tx.fetch_optional(sql, vec![Arg::text(id)]).await?.is_some())
}

/// Writes the trail of a change, in the change's own transaction.
pub(crate) async fn write_trail(
    tx: &mut Tx,
    trail: &Trail,
    answers_kept: std::time::Duration,
) -> Result<()> {
    crate::ledger::insert_event(tx, &trail.event).await?;
    if let Some(answer) = &trail.answer {
        insert_answer(tx, answer, answers_kept).await?;
    }
    Ok(())
}

/// Keeps an answer.
pub(crate) async fn insert_answer(
    tx: &mut Tx,
    answer: &StoredAnswer,
    kept: std::time::Duration,
) -> Result<()> {
    let sql = "delete from idempotent_answers \
               where scope = $1 and idempotency_key = $2 and created_at <= $3";
    let expired = answer.created_at.minus(kept);
    let args = vec![
        Arg::text(&answer.scope),
        Arg::text(&answer.key),
        Arg::time(expired),
    ];
    tx.execute(sql, args).await?;
    let sql = "insert into idempotent_answers \
               (scope, idempotency_key, fingerprint, status, body, location, created_at) \
               values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";
    let args = vec![
        Arg::text(&answer.scope),
        Arg::text(&answer.key),
        Arg::text(&answer.fingerprint),
        i64::from(answer.status).into(),
        Arg::text(&answer.body),
        Arg::opt_text(answer.location.as_ref()),
        Arg::time(answer.created_at),
    ];
    if tx.execute(sql, args).await? == 0 {
        return Err(Error::conflict("The idempotency key is in use."));
    }
    Ok(())
}
