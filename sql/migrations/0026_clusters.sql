-- Rows that are tied to one another, directly or through others, are one cluster of the gate's
-- tests; null of rows that were curated before, until they are curated again.

alter table curated.standings add column component_id varchar;

alter table curated.examples add column cluster_id varchar;

alter table curated.preferences add column cluster_id varchar;
