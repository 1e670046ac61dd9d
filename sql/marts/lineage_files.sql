-- One row per kind of row and place that traced rows were read from: a log file, or the archive
-- where they are now; without a place they were erased, or never came from a file. Of each place
-- how many rows, the first and the last line, and the first three rows with their lines. Reads
-- raw.interactions, raw.feedback, raw.archived, raw.files and a snapshot's files.

with

named_rows as (
    select
        interaction_ids,
        feedback_ids
    from read_parquet($paths, union_by_name = true)
),

traced_rows as (
    select distinct
        'interactions' as kind,
        unnest(interaction_ids) as id
    from named_rows
    union all
    select distinct
        'feedback' as kind,
        unnest(feedback_ids) as id
    from named_rows
),

named as (
    select
        digest as file_digest,
        min(path) as path
    from raw.files
    group by digest
),

held as (
    select
        'interactions' as kind,
        interaction_id as id,
        file_digest,
        line
    from raw.interactions
    union all
    select
        'feedback' as kind,
        feedback_id as id,
        file_digest,
        line
    from raw.feedback
),

placed as (
    select
        traced.kind,
        traced.id,
        held.line,
        coalesce(named.path, archived.path) as place
    from traced_rows as traced
    left join held on traced.kind = held.kind and traced.id = held.id
    left join named on held.file_digest = named.file_digest
    left join raw.archived as archived
        on traced.kind = archived.kind and traced.id = archived.id and held.id is null
)

select
    kind,
    place,
    count(*) as row_count,
    min(line) as first_line,
    max(line) as last_line,
    list_slice(list(id order by line, id), 1, 3) as first_ids,
    list_slice(list(line order by line, id), 1, 3) as first_lines
from placed
group by kind, place
order by kind desc, row_count desc, place asc
