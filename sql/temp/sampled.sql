-- One row per interaction of the workload that is curated: those with feedback, and of the others
-- the ones with the lowest hashes of their ids, $at_most in all unless more have feedback. So
-- growth replaces as few rows as it must. Whoever's feedback it is: a row too many does no harm.
-- Reads raw.interactions and raw.feedback.

with

targets as (
    select
        unnest([
            response_id,
            conversation_id,
            target_id,
            coalesce(record, payload) ->> '$.value.chosen',
            coalesce(record, payload) ->> '$.value.rejected',
            coalesce(record, payload) ->> '$.value'
        ]) as target_id
    from raw.feedback
),

logged as (
    select
        interaction_id,
        unnest(json_extract_string(coalesce(record, payload), [
            '$.response.id', '$.conversation_id', '$.trace_id'
        ])) as target_id
    from raw.interactions
    where workload_id = $workload_id
),

vouched as (
    select distinct logged.interaction_id
    from logged
    semi join targets using (target_id)
)

select interactions.interaction_id
from raw.interactions as interactions
left join vouched using (interaction_id)
where interactions.workload_id = $workload_id
qualify
    vouched.interaction_id is not null
    or row_number() over (
        order by
            vouched.interaction_id is not null desc,
            md5(interactions.interaction_id) asc,
            interactions.interaction_id asc
    ) <= $at_most
