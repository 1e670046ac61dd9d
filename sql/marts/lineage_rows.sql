-- One row per file of a snapshot: how many rows, the first ids, and how many distinct interactions
-- and feedback events they name. Reads a snapshot's files, each of which has one of the three ids.

with

any_row as (
    select
        null::varchar as example_id,
        null::varchar as preference_id,
        null::varchar as label_id,
        null::varchar[] as interaction_ids,
        null::varchar[] as feedback_ids,
        null::varchar as filename,
        null::bigint as file_row_number
    where false
),

named_rows as (
    select *
    from any_row
    union all by name
    select *
    from read_parquet($paths, filename = true, file_row_number = true, union_by_name = true)
)

select
    parse_filename(filename, true) as side,
    count(*) as row_count,
    min_by(coalesce(example_id, preference_id, label_id), file_row_number, $shown) as first_ids,
    len(list_distinct(flatten(list(interaction_ids)))) as interactions,
    len(list_distinct(flatten(list(feedback_ids)))) as feedback
from named_rows
group by side
order by list_position(['train', 'validation', 'holdout', 'preferences', 'labels'], side)
