-- How far jobs are, and since when.

-- noted_bytes: the most that was ever said to be safe from a crash. Who gets it further is not what workers die of.
alter table jobs add column noted_bytes bigint not null default 0;

-- What the latest attempt found done, and when it began; null: none is on.
alter table jobs add column resumed_bytes bigint not null default 0;
alter table jobs add column attempt_at bigint;
