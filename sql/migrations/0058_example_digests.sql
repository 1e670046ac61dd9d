-- What is in an example, by the digests of its texts, so that a night compares and freezes examples
-- without reading the texts of those that did not change; null of rows that were curated before and
-- of replayed ones.

alter table curated.examples add column content_digest varchar;

-- One row per example of the last snapshot: its part of the snapshot's key, a digest of the texts
-- themselves.
create table curated.example_digests (
    workload_id varchar not null,
    content_digest varchar not null,
    measured_digest varchar not null
);
