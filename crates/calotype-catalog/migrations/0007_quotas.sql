-- What projects may have, and what they have.

-- A project's own limits, which go before the configuration's; null: the configuration's. The greatest number is none.
create table project_limits (
    project {text} not null primary key,
    images bigint check (images >= 0),
    members bigint check (members >= 0),
    bytes bigint check (bytes >= 0)
);

-- bytes counts each image's, blob_bytes each blob's once, however many of the project's images refer to it; a replica that
-- will share a blob counts from its submission. reserved: for what is being written.
alter table project_usage add column blob_bytes bigint not null default 0 check (blob_bytes >= 0);
alter table project_usage add column reserved bigint not null default 0 check (reserved >= 0);

-- For which project how much is reserved while the blob is being written.
alter table blobs add column reserved_for {text};
alter table blobs add column reserved bigint not null default 0 check (reserved >= 0);
create index blobs_by_reservation on blobs (reserved_for) where reserved_for is not null;

-- Whether a project has a blob is asked whenever it gets or loses one.
drop index images_by_blob;
create index images_by_blob on images (blob, owner) where blob is not null;

update blobs set reserved_for = (select i.owner from images i where i.uploading_blob = blobs.id)
    where state = 'writing' and exists (select 1 from images i where i.uploading_blob = blobs.id);
update blobs set
    reserved_for = (select j.project from jobs j where j.target_blob = blobs.id),
    reserved = (select s.size from jobs j join blobs s on s.id = j.blob where j.target_blob = blobs.id)
    where state = 'writing'
    and exists (select 1 from jobs j join blobs s on s.id = j.blob
        where j.target_blob = blobs.id and s.size is not null);
insert into project_usage (project, images, bytes, reserved)
    select b.reserved_for, 0, 0, sum(b.reserved) from blobs b where b.reserved_for is not null group by b.reserved_for
    on conflict (project) do update set reserved = excluded.reserved;
update project_usage set bytes = 0;
insert into project_usage (project, images, bytes)
    select h.project, 0, sum(h.size) from (
        select i.owner as project, b.size from images i join blobs b on b.id = i.blob
        union all
        select j.project, b.size from jobs j join blobs b on b.id = j.blob
            where j.ended_at is null and j.target_blob is null) as h
    group by h.project
    on conflict (project) do update set bytes = excluded.bytes;
insert into project_usage (project, images, bytes, blob_bytes)
    select h.project, 0, 0, sum(h.size) from (
        select i.owner as project, b.id, b.size from images i join blobs b on b.id = i.blob
        union
        select j.project, b.id, b.size from jobs j join blobs b on b.id = j.blob
            where j.ended_at is null and j.target_blob is null) as h
    group by h.project
    on conflict (project) do update set blob_bytes = excluded.blob_bytes;
