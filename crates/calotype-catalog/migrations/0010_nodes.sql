-- What one process at a time does for all: which one, and until when without a sign of life.
create table leases (
    name {text} not null primary key,
    holder {text} not null,
    expires_at bigint not null
);

-- The oldest version whose programs can work with the schema since this step; none before there was this column.
alter table schema_migrations add column compatible_from bigint;
