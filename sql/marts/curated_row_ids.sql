-- One row per mention of an interaction or a feedback event by the workload's examples, preferences
-- and labels. Reads curated.examples, curated.preferences and curated.labels.

with

named as (
    select
        workload_id,
        interaction_ids || feedback_ids as ids
    from curated.examples
    union all
    select
        workload_id,
        interaction_ids || feedback_ids as ids
    from curated.preferences
    union all
    select
        workload_id,
        interaction_ids || feedback_ids as ids
    from curated.labels
)

select unnest(ids) as id
from named
where workload_id = $workload_id
