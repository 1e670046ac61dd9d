-- A log is written to while it is collected: how many bytes of it were read tells where to read on
-- from. Null where a file can't be read on: it is packed, no file of lines, or its rows belong
-- together.

alter table raw.files add column size bigint;
