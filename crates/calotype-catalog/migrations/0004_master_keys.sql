-- Master keys, wrapped under root keys that are kept elsewhere.

-- What there is one of. id: the catalog's own, by which a store of blobs knows whose it is.
create table catalog_facts (
    name {text} not null primary key,
    value {text} not null
);

-- wraps: it is the current one. A root key that was the current one and is not any more never is again.
create table root_keys (
    name {text} not null primary key,
    since bigint not null,
    wraps boolean not null,
    retired_at bigint
);
create unique index root_keys_current on root_keys (wraps) where wraps;

-- The service's own keys have no project. version: the one that wraps. deletion_at: when a key that is pending goes, at
-- the wish of deletion_by in deletion_request. rotation_since: from when on rotation_days count.
create table master_keys (
    id {text} not null primary key,
    project {text},
    domain {text},
    alias {text},
    description {text} not null,
    realm {text} not null,
    enterprise_project {text} not null,
    state {text} not null,
    version bigint not null,
    created_at bigint not null,
    deletion_at bigint,
    deletion_by {text},
    deletion_request {text},
    rotation_days bigint,
    rotation_since bigint,
    rotated_at bigint,
    rotations bigint not null,
    check (state in ('enabled', 'disabled', 'pending')),
    check ((state = 'pending') = (deletion_at is not null)),
    check ((rotation_days is null) = (rotation_since is null)),
    check ((project is null) = (alias is null) and (project is null) = (domain is null))
);
create index master_keys_by_project on master_keys (project, created_at, id);
create unique index master_keys_by_alias on master_keys (project, alias) where state <> 'pending';
create index master_keys_by_deletion on master_keys (deletion_at) where deletion_at is not null;
create index master_keys_by_rotation on master_keys (rotation_since)
    where rotation_since is not null;

-- wrapped: the material, under the root key.
create table master_key_versions (
    key_id {text} not null references master_keys (id) on delete cascade,
    version bigint not null,
    root {text} not null references root_keys (name),
    wrapped {blob} not null,
    created_at bigint not null,
    primary key (key_id, version)
);
create index master_key_versions_by_root on master_key_versions (root);

-- operations: words with commas between them. retiring: the user who may give the grant back.
create table key_grants (
    id {text} not null primary key,
    key_id {text} not null references master_keys (id) on delete cascade,
    grantee {text} not null,
    grantee_type {text} not null,
    operations {text} not null,
    name {text},
    retiring {text},
    issuer {text} not null,
    created_at bigint not null,
    check (grantee_type in ('user', 'domain'))
);
create index key_grants_by_key on key_grants (key_id, created_at, id);
create index key_grants_by_retiring on key_grants (retiring, created_at, id)
    where retiring is not null;

create table key_tags (
    key_id {text} not null references master_keys (id) on delete cascade,
    name {text} not null,
    value {text} not null,
    primary key (key_id, name)
);
