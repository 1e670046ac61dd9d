-- What production answered, redacted, beside the answer that is learned or tested on; null of rows
-- that were curated before, until they are curated again.
alter table curated.examples add column logged_answer varchar;
