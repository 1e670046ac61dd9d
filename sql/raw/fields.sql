-- One row per field that records of a source show and that it has not shown before. It is new, and
-- not merely the first of its source, if a file of that source was loaded before.
-- Reads shown (field), which collect hands over, raw.fields and raw.files.

select
    $source_name as source,
    shown.field,
    $path as first_path,
    $now::timestamptz as first_seen_at,
    exists(
        select 1
        from raw.files
        where source = $source_name
    ) as is_new
from shown
anti join raw.fields as known on known.source = $source_name and shown.field = known.field
