-- One row per field that a source showed after its first file, the newest first.
-- Reads raw.fields.

select
    source,
    field,
    first_path,
    first_seen_at
from raw.fields
where is_new
order by first_seen_at desc, source asc, field asc
