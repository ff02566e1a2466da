-- What one process at a time does for all: which one, and until when without a sign of life.
create table leases (
    name {text} not null primary key,
    holder {text} not null,
    expires_at bigint not null
);

-- The oldest version whose programs can work with the schema since this step; none before there was this column.
alter table schema_migrations add column compatible_from bigint;

-- Where the catalog is, if it is not here: 'arriving' while it is copied here out of another database, 'left' when it has been copied into
-- another one. Nobody works on it then. catalog: its id.
create table catalog_moves (
    state {text} not null primary key,
    catalog {text} not null
);

-- How far the tables have got of a catalog that is arriving: the key of the last row, and how many rows there are.
create table catalog_copies (
    name {text} not null primary key,
    after {text},
    copied bigint not null,
    done boolean not null
);
