-- Bytes that are read again from time to time, to find what has rotted.

-- When a stored blob's bytes were written, or last read by the scrubber; null: never since an older version wrote them.
alter table blobs add column scrubbed_at bigint;
