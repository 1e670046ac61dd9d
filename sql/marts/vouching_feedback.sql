-- One row per named feedback by which a person confirms an answer or writes the right one: a thumb
-- up, a rating in the upper part of its scale, as curation reads them, a correction. Reads
-- raw.feedback.

with

named as (
    select unnest($feedback_ids::varchar[]) as feedback_id
),

given as (
    select
        feedback_id,
        kind,
        json_extract_string(coalesce(record, payload), '$.value') as value,
        json_extract(coalesce(record, payload), '$.scale') as scale
    from raw.feedback
    semi join named using (feedback_id)
    where kind in ('thumb', 'rating', 'correction')
),

placed as (
    select
        feedback_id,
        kind,
        value,
        (try_cast(value as double) - try_cast((scale ->> '$[0]') as double)) / nullif(
            try_cast((scale ->> '$[1]') as double) - try_cast((scale ->> '$[0]') as double), 0
        ) as place
    from given
)

select distinct feedback_id
from placed
where
    kind = 'correction'
    or (kind = 'thumb' and value = 'up')
    or (kind = 'rating' and place >= 0.625)
order by feedback_id
