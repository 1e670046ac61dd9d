-- Ids in the workload's examples, pairs and labels that raw does not hold.

with

learned as (
    select
        workload_id,
        interaction_ids,
        feedback_ids
    from curated.examples
    union all
    select
        workload_id,
        interaction_ids,
        feedback_ids
    from curated.preferences
    union all
    select
        workload_id,
        interaction_ids,
        feedback_ids
    from curated.labels
),

named as (
    select
        'interaction' as kind,
        unnest(interaction_ids) as id
    from learned
    where workload_id = $workload_id
    union all
    select
        'feedback' as kind,
        unnest(feedback_ids) as id
    from learned
    where workload_id = $workload_id
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
    from raw.feedback
    where workload_id = $workload_id or source != 'feedback'
)

select
    named.kind,
    named.id
from named
anti join held using (kind, id)
