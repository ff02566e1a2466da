-- Replicas under other keys.

-- The wrap of the blob's data key that the image's readers use, as JSON; null: the one in the blob's manifest.
alter table images add column wrapped_key {text};

-- When the blob's bytes were found damaged. Images repeat it.
alter table blobs add column damaged_at bigint;
alter table images add column damaged_at bigint;

-- How the replica gets its bytes, as JSON; null: it shares its source's. target_blob is the blob that is being made, in
-- state writing without a lease: the job's own lease counts.
alter table jobs add column replica_bytes {text};
alter table jobs add column target_blob {text} references blobs (id);
create index jobs_by_target_blob on jobs (target_blob) where target_blob is not null;

-- Finished segments are noted beside the staged bytes.
alter table jobs drop column checkpoint;
