-- One row per field that the rows looked at show and that their source has not shown before: the
-- keys of the payload, of its request and of its response. Looked at are at least so many rows,
-- spread evenly over the batch: all of a small one, so a field that only few rows of a long log
-- have may be missed. It is new, and not merely the first of its source, if a file of that source
-- was loaded before.
-- Reads lines, which collect hands over, raw.fields and raw.files.

with

steps as (
    select greatest(1, count(*) // $rows_looked_at) as step
    from lines
),

shapes as (
    select distinct try(json_keys(lines.content, ['$', '$.request', '$.response'])) as found
    from lines
    cross join steps
    where lines.ordinal % steps.step = 0
),

shown as (
    select unnest(found[1]) as field
    from shapes
    union
    select 'request.' || unnest(found[2]) as field
    from shapes
    union
    select 'response.' || unnest(found[3]) as field
    from shapes
)

select distinct
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
