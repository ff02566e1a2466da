-- The first schema. {text}, {blob} and {serial} are the only words that differ between the engines:
-- texts compare byte by byte on both, so that an order is the same order everywhere.
-- Times are microseconds since 1970-01-01T00:00:00Z.

create table domains (
    id {text} not null primary key,
    name {text} not null unique,
    enabled boolean not null
);

create table projects (
    id {text} not null primary key,
    domain_id {text} not null references domains (id),
    name {text} not null,
    description {text} not null,
    enabled boolean not null,
    unique (domain_id, name)
);

create table users (
    id {text} not null primary key,
    domain_id {text} not null references domains (id),
    name {text} not null,
    password_hash {text},
    default_project {text},
    enabled boolean not null,
    unique (domain_id, name)
);

create table roles (
    id {text} not null primary key,
    name {text} not null unique
);

-- target_kind: project, domain or system; target_id is empty for system.
create table assignments (
    user_id {text} not null references users (id) on delete cascade,
    target_kind {text} not null,
    target_id {text} not null,
    role_id {text} not null references roles (id),
    primary key (user_id, target_kind, target_id, role_id)
);
create index assignments_by_target on assignments (target_kind, target_id);

create table access_keys (
    access {text} not null primary key,
    sealed_secret {blob} not null,
    user_id {text} not null references users (id) on delete cascade,
    project_id {text},
    enabled boolean not null,
    created_at bigint not null
);
create index access_keys_by_user on access_keys (user_id, created_at);
create index access_keys_by_project on access_keys (project_id);

-- project_id repeats what scope says, so that a project's tokens can be revoked.
create table tokens (
    hash {text} not null primary key,
    user_id {text} not null references users (id) on delete cascade,
    project_id {text},
    scope {text} not null,
    methods {text} not null,
    issued_at bigint not null,
    expires_at bigint not null,
    audit_id {text} not null
);
create index tokens_by_user on tokens (user_id);
create index tokens_by_project on tokens (project_id);
create index tokens_by_expiry on tokens (expires_at);

create table enterprise_projects (
    id {text} not null primary key,
    name {text} not null unique,
    enabled boolean not null,
    created_at bigint not null
);
insert into enterprise_projects (id, name, enabled, created_at) values ('0', 'default', true, 0);

-- state: writing (lease_expires says how long), stored, deleting. deletable_at is set when the last
-- image that refers to a stored blob goes, and cleared when one refers to it again.
create table blobs (
    id {text} not null primary key,
    state {text} not null,
    size bigint,
    stored bigint,
    md5 {text},
    sha256 {text},
    sha512 {text},
    lease_expires bigint,
    deletable_at bigint,
    check (state in ('writing', 'stored', 'deleting')),
    check (state <> 'stored' or (size is not null and stored is not null))
);
create index blobs_by_lease on blobs (lease_expires) where lease_expires is not null;
create index blobs_by_deletion on blobs (deletable_at) where deletable_at is not null;
create index blobs_deleting on blobs (state, id) where state = 'deleting';

-- name_key is the name, or empty where there is none: what lists are ordered by.
create table images (
    id {text} not null primary key,
    owner {text} not null,
    status {text} not null,
    visibility {text} not null,
    name {text},
    name_key {text} not null,
    disk_format {text},
    container_format {text},
    min_disk bigint not null,
    min_ram bigint not null,
    protected boolean not null,
    hidden boolean not null,
    size bigint,
    virtual_size bigint,
    md5 {text},
    sha256 {text},
    sha512 {text},
    blob {text} references blobs (id),
    uploading_blob {text} references blobs (id),
    cmk_id {text},
    enterprise_project {text} not null,
    created_at bigint not null,
    updated_at bigint not null,
    active_at bigint,
    version bigint not null
);
create index images_by_owner on images (owner, created_at, id);
create index images_by_owner_name on images (owner, name_key, created_at, id);
create index images_by_owner_visibility on images (owner, visibility, created_at, id);
create index images_by_visibility on images (visibility, created_at, id);
create index images_by_visibility_name on images (visibility, name_key, created_at, id);
create index images_by_creation on images (created_at, id);
create index images_by_name on images (name_key, created_at, id);
create index images_by_blob on images (blob) where blob is not null;
create index images_by_uploading_blob on images (uploading_blob) where uploading_blob is not null;

-- owner and created_at repeat the image's (they never change); shelf is its visibility while that is
-- public or community. With them a page comes straight off an index, whoever asks.
create table image_properties (
    image_id {text} not null references images (id) on delete cascade,
    name {text} not null,
    value {text} not null,
    owner {text} not null,
    shelf {text},
    created_at bigint not null,
    primary key (image_id, name)
);
create index image_properties_by_owner
    on image_properties (owner, name, value, created_at, image_id);
create index image_properties_by_shelf
    on image_properties (shelf, name, value, created_at, image_id) where shelf is not null;
create index image_properties_by_value on image_properties (name, value, created_at, image_id);

create table image_tags (
    image_id {text} not null references images (id) on delete cascade,
    tag {text} not null,
    owner {text} not null,
    shelf {text},
    created_at bigint not null,
    primary key (image_id, tag)
);
create index image_tags_by_owner on image_tags (owner, tag, created_at, image_id);
create index image_tags_by_shelf
    on image_tags (shelf, tag, created_at, image_id) where shelf is not null;
create index image_tags_by_tag on image_tags (tag, created_at, image_id);

-- image_created_at repeats the image's.
create table image_members (
    image_id {text} not null references images (id) on delete cascade,
    project {text} not null,
    status {text} not null,
    created_at bigint not null,
    updated_at bigint not null,
    image_created_at bigint not null,
    primary key (image_id, project)
);
create index image_members_by_status
    on image_members (project, status, image_created_at, image_id);
create index image_members_by_project on image_members (project, image_created_at, image_id);

-- The ids of deleted images: none comes back.
create table burnt_image_ids (
    id {text} not null primary key,
    burnt_at bigint not null
);

-- due_at is when the job may be picked: its lease's end while a worker has it. The job holds blob until
-- it ends.
create table jobs (
    id {text} not null primary key,
    project {text} not null,
    user_id {text} not null,
    job_type {text} not null,
    status {text} not null,
    source_image {text},
    image_id {text},
    image_name {text},
    blob {text} references blobs (id),
    done_bytes bigint not null,
    total_bytes bigint not null,
    checkpoint {text},
    attempt bigint not null,
    lease_owner {text},
    due_at bigint not null,
    cancelled boolean not null,
    error_code {text},
    fail_reason {text},
    created_at bigint not null,
    started_at bigint,
    ended_at bigint,
    check (status in ('INIT', 'RUNNING', 'SUCCESS', 'FAIL'))
);
create index jobs_unfinished_by_due on jobs (due_at) where ended_at is null;
create index jobs_unfinished_by_project on jobs (project) where ended_at is null;
create index jobs_unfinished_by_image on jobs (image_id) where ended_at is null;
create index jobs_by_blob on jobs (blob) where blob is not null;
create index jobs_by_project on jobs (project, created_at, id);
create index jobs_by_status on jobs (project, status, created_at, id);

create table project_usage (
    project {text} not null primary key,
    images bigint not null check (images >= 0),
    bytes bigint not null check (bytes >= 0)
);

create table idempotent_answers (
    scope {text} not null,
    idempotency_key {text} not null,
    fingerprint {text} not null,
    status bigint not null,
    body {text} not null,
    location {text},
    created_at bigint not null,
    primary key (scope, idempotency_key)
);
create index idempotent_answers_by_creation on idempotent_answers (created_at);

create table audit_events (
    seq {serial},
    at bigint not null,
    trace {text} not null,
    request_id {text} not null,
    project {text},
    user_id {text} not null,
    resource_type {text} not null,
    resource_id {text} not null,
    detail {text} not null
);
create index audit_events_by_project on audit_events (project, seq);
