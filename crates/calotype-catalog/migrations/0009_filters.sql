-- A filter of a list by one of these columns is answered as fast where few images meet it as where all do. The images are in the order of
-- their creation below each value, as lists have them; lists that are sorted by some of these come off them too.
create index images_by_owner_cmk_id
    on images (owner, cmk_id, created_at, id)
    where cmk_id is not null;
create index images_by_owner_enterprise_project
    on images (owner, enterprise_project, created_at, id);
create index images_by_owner_min_disk
    on images (owner, min_disk, created_at, id);
create index images_by_owner_min_ram
    on images (owner, min_ram, created_at, id);
create index images_by_owner_disk_format
    on images (owner, coalesce(disk_format, ''), created_at, id);
create index images_by_owner_container_format
    on images (owner, coalesce(container_format, ''), created_at, id);
create index images_by_owner_status
    on images (owner, status, created_at, id);
create index images_by_owner_protected
    on images (owner, protected, created_at, id);
create index images_by_owner_size on images (owner, coalesce(size, -1), created_at, id);
create index images_by_owner_id on images (owner, id);
create index images_by_owner_change on images (owner, updated_at);

-- Of all projects together only those that everybody sees.
create index images_by_shelf_cmk_id
    on images (visibility, cmk_id, created_at, id)
    where visibility in ('public', 'community') and cmk_id is not null;
create index images_by_shelf_enterprise_project
    on images (visibility, enterprise_project, created_at, id)
    where visibility in ('public', 'community');
create index images_by_shelf_min_disk
    on images (visibility, min_disk, created_at, id)
    where visibility in ('public', 'community');
create index images_by_shelf_min_ram
    on images (visibility, min_ram, created_at, id)
    where visibility in ('public', 'community');
create index images_by_shelf_disk_format
    on images (visibility, coalesce(disk_format, ''), created_at, id)
    where visibility in ('public', 'community');
create index images_by_shelf_container_format
    on images (visibility, coalesce(container_format, ''), created_at, id)
    where visibility in ('public', 'community');
create index images_by_shelf_status
    on images (visibility, status, created_at, id)
    where visibility in ('public', 'community');
create index images_by_shelf_protected
    on images (visibility, protected, created_at, id)
    where visibility in ('public', 'community');
