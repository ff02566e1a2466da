-- What is purged is found by when its time is over. Deleted images' ids are not among it: none comes back.
create index audit_events_by_time on audit_events (at);
create index jobs_by_end on jobs (ended_at) where ended_at is not null;

-- deaths: how many workers died with the job.
alter table jobs add column deaths bigint not null default 0;

-- A temporary key has all three, a permanent one none: when it ends, the hash of the security token that goes with
-- it, and what it is good for. project_id repeats what scope says, as in tokens.
alter table access_keys add column expires_at bigint;
alter table access_keys add column security_token_hash {text};
alter table access_keys add column scope {text};
create index access_keys_by_expiry on access_keys (expires_at) where expires_at is not null;
