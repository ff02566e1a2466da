//! The invariants that SQL can see. Each question finds what breaks one; a sound catalog answers none.

use calotype_core::Result;
use calotype_core::job::JobType;
use calotype_core::ports::Violation;

use crate::db::Tx;

/// Invariant, what is wrong, and the question, whose column `id` names the culprit. `{makers}` stands for the types of
/// jobs that make their image.
const CHECKS: &[(u8, &str, &str)] = &[
    (
        1,
        "an active image has no stored blob",
        "select i.id from images i left join blobs b on b.id = i.blob and b.state = 'stored' \
         where i.status in ('active', 'deactivated') and b.id is null",
    ),
    (
        1,
        "an image that is not active has a blob",
        "select id from images where blob is not null and status not in ('active', 'deactivated')",
    ),
    (
        2,
        "an image's size or digest is not its blob's",
        "select i.id from images i join blobs b on b.id = i.blob where i.size <> b.size \
         or i.size is null or (b.md5 is not null and coalesce(i.md5, '') <> b.md5) \
         or (b.sha256 is not null and coalesce(i.sha256, '') <> b.sha256) \
         or (b.sha512 is not null and coalesce(i.sha512, '') <> b.sha512)",
    ),
    (
        2,
        "a deleted image's id is in use",
        "select i.id from images i join burnt_image_ids t on t.id = i.id",
    ),
    (
        3,
        "a stored blob is unreferenced and will never be collected",
        "select b.id from blobs b where b.state = 'stored' and b.deletable_at is null \
         and not exists (select 1 from images i where i.blob = b.id) \
         and not exists (select 1 from jobs j where j.blob = b.id)",
    ),
    (
        3,
        "a blob is being written without a lease and without a job",
        "select b.id from blobs b where b.state = 'writing' and b.lease_expires is null \
         and not exists (select 1 from jobs j where j.target_blob = b.id)",
    ),
    (
        3,
        "a copy of a blob is being made by nothing",
        "select c.id from blob_copies c where c.state = 'arriving' \
         and not exists (select 1 from jobs j where j.id = c.job and j.ended_at is null)",
    ),
    (
        4,
        "where a blob is, is where a copy of it may be removed",
        "select b.id from blobs b join blob_copies c on c.store = b.store \
         and c.id = coalesce(b.place, b.id)",
    ),
    (
        4,
        "an image's blob is being deleted",
        "select i.id from images i join blobs b on b.id = i.blob where b.state <> 'stored'",
    ),
    (
        4,
        "an image's blob may be collected",
        "select i.id from images i join blobs b on b.id = i.blob where b.deletable_at is not null",
    ),
    (
        4,
        "a job's blob is not stored",
        "select j.id from jobs j join blobs b on b.id = j.blob where b.state <> 'stored'",
    ),
    (
        5,
        "a finished job holds a lease, a blob or work, or has not ended",
        "select id from jobs where status in ('SUCCESS', 'FAIL') and (lease_owner is not null \
         or blob is not null or target_blob is not null or work is not null or ended_at is null)",
    ),
    (
        5,
        "the blob that an unfinished job makes is not being written",
        "select j.id from jobs j left join blobs b on b.id = j.target_blob \
         where j.target_blob is not null and coalesce(b.state, '') <> 'writing'",
    ),
    (
        5,
        "an unfinished job has ended, or has nothing to do",
        "select id from jobs where status in ('INIT', 'RUNNING') \
         and (ended_at is not null or work is null)",
    ),
    (
        5,
        "an unfinished replication holds no blob",
        "select id from jobs where ended_at is null and blob is null \
         and job_type = 'imsCopyImageInRegionJob'",
    ),
    (
        5,
        "an unfinished job's parts have ended, or an ended one's have not",
        "select w.id from jobs w where w.job_type = 'imsImportOvaImageJob' and w.ended_at is null \
         and not exists (select 1 from jobs p where p.parent = w.id and p.ended_at is null) \
         union select p.id from jobs p join jobs w on w.id = p.parent \
         where w.ended_at is not null and p.ended_at is null",
    ),
    (
        5,
        "an image is being made by nothing",
        "select i.id from images i where i.status = 'saving' and i.uploading_blob is null \
         and not exists (select 1 from jobs j where j.image_id = i.id and j.ended_at is null)",
    ),
    (
        5,
        "an image's upload is not being written",
        "select i.id from images i join blobs b on b.id = i.uploading_blob \
         where b.state <> 'writing' or i.status <> 'saving'",
    ),
    (
        5,
        "an unfinished job's image is gone",
        "select j.id from jobs j where j.ended_at is null and j.image_id is not null \
         and not exists (select 1 from images i where i.id = j.image_id)",
    ),
    (
        6,
        "a project's count of images is not theirs",
        "select coalesce(u.project, s.owner) as id from (select owner, count(*) as images \
         from images group by owner) as s full outer join project_usage u on u.project = s.owner \
         where coalesce(u.images, 0) <> coalesce(s.images, 0)",
    ),
    (
        6,
        "a project's bytes are not the sum over its images and what shares their blobs soon",
        "select coalesce(u.project, s.owner) as id from (select h.owner, sum(h.size) as bytes from \
         (select i.owner, b.size from images i join blobs b on b.id = i.blob union all \
         select j.project, b.size from jobs j join blobs b on b.id = j.blob \
         where j.ended_at is null and j.target_blob is null and j.image_id is not null) as h \
         group by h.owner) as s \
         full outer join project_usage u on u.project = s.owner \
         where coalesce(u.bytes, 0) <> coalesce(s.bytes, 0)",
    ),
    (
        6,
        "a project's bytes are not the sum over its blobs",
        "select coalesce(u.project, s.owner) as id from (select h.owner, sum(h.size) as bytes from \
         (select i.owner, b.id, b.size from images i join blobs b on b.id = i.blob union \
         select j.project, b.id, b.size from jobs j join blobs b on b.id = j.blob \
         where j.ended_at is null and j.target_blob is null and j.image_id is not null) as h \
         group by h.owner) as s \
         full outer join project_usage u on u.project = s.owner \
         where coalesce(u.blob_bytes, 0) <> coalesce(s.bytes, 0)",
    ),
    (
        6,
        "what a project has reserved is not what is being written for it",
        "select coalesce(u.project, s.owner) as id from (select reserved_for as owner, \
         sum(reserved) as bytes from blobs where reserved_for is not null group by reserved_for) \
         as s full outer join project_usage u on u.project = s.owner \
         where coalesce(u.reserved, 0) <> coalesce(s.bytes, 0)",
    ),
    (
        6,
        "a blob that is not being written has bytes reserved",
        "select id from blobs where state <> 'writing' and (reserved_for is not null or reserved <> 0)",
    ),
    (
        10,
        "a failed job left its image",
        "select j.id from jobs j join images i on i.id = j.image_id where j.status = 'FAIL' \
         and j.job_type in ({makers})",
    ),
];

/// At most so many culprits are named per check.
const NAMED: usize = 100;

pub(crate) async fn violations(tx: &mut Tx) -> Result<Vec<Violation>> {
    let makers = JobType::ALL.iter().filter(|kind| kind.makes_its_image());
    let makers: Vec<String> = makers.map(|kind| format!("'{kind}'")).collect();
    let makers = makers.join(", ");
    let mut found = Vec::new();
    tx.take_time().await?;
    for (invariant, what, question) in CHECKS {
        let rows = tx
            .fetch_all(
                format!("{} limit {NAMED}", question.replace("{makers}", &makers)),
                Vec::new(),
            )
            .await?;
        for row in rows {
            found.push(Violation {
                invariant: *invariant,
                detail: format!("{what}: {}", row.text("id")?),
            });
        }
    }
    Ok(found)
}
