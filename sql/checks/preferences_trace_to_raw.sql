-- Ids in the workload's pairs and labels that raw does not hold.

with

rows_of as (
    select
        interaction_ids,
        feedback_ids
    from curated.preferences
    where workload_id = $workload_id
    union all
    select
        interaction_ids,
        feedback_ids
    from curated.labels
    where workload_id = $workload_id
),

named as (
    select
        'interaction' as kind,
        unnest(interaction_ids) as id
    from rows_of
    union all
    select
        'feedback' as kind,
        unnest(feedback_ids) as id
    from rows_of
),

held as (
    select
        'interaction' as kind,
        interaction_id as id
    from raw.interactions
    where workload_id = $workload_id
    union all
    select
        'feedback' as kind,
        feedback_id as id
    from staging.given
)

select
    named.kind,
    named.id
from named
anti join held using (kind, id)
