-- Jobs of several types.

-- What there is to do, as JSON; null once the job has ended. Until now it was how a replica gets its bytes, and null
-- where it shares its source's.
alter table jobs rename column replica_bytes to work;

-- What became of each pair of image and project of a job about members, as JSON; null where there is none.
alter table jobs add column results {text};

-- The job that this one is a part of.
alter table jobs add column parent {text};
create index jobs_by_parent on jobs (parent, created_at, id) where parent is not null;

update jobs set work = '{"do":"replicate","source":"' || blob || '","bytes":'
    || coalesce(work, '{"mode":"share","wrapped":null}') || '}'
    where ended_at is null;
