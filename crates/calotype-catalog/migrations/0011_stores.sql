-- Several stores of blobs.

-- Where the blob's bytes are: in which store, and what the store knows them by; null: by the blob's id. A blob that is moved gets
-- a name in the other store that was never used.
alter table blobs add column store {text} not null default 'main';
alter table blobs add column place {text};

-- Bytes in stores that are no blob's: copies that a job is making, those that blobs have left and that go once their grace is over,
-- and those that are being removed.
create table blob_copies (
    store {text} not null,
    id {text} not null,
    blob {text} not null,
    job {text} not null,
    state {text} not null,
    deletable_at bigint,
    primary key (store, id),
    check (state in ('arriving', 'leaving', 'deleting')),
    check ((state = 'arriving') = (deletable_at is null))
);
create index blob_copies_by_time on blob_copies (deletable_at) where deletable_at is not null;
