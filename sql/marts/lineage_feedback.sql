-- One row per kind of traced feedback: how many events, and the first three. Reads raw.feedback and
-- a snapshot's files.

with

traced_rows as (
    select distinct unnest(feedback_ids) as feedback_id
    from read_parquet($paths, union_by_name = true)
)

select
    feedback.kind,
    count(*) as events,
    list_slice(list(feedback.feedback_id order by feedback.timestamp, feedback.feedback_id), 1, 3)
        as first_ids
from raw.feedback as feedback
inner join traced_rows using (feedback_id)
group by feedback.kind
order by feedback.kind
