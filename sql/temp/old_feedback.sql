-- One row per feedback that goes out of raw with the interactions that it is about, all of them
-- old; what still waits for its target stays. Reads raw.feedback, raw.interactions,
-- temp.old_interactions and needed (id), which retention hands over.

with

named as (
    select
        interactions.client_id,
        json_extract_string(
            coalesce(interactions.record, interactions.payload),
            ['$.response.id', '$.conversation_id', '$.trace_id']
        ) as ids,
        old.id is not null as is_old
    from raw.interactions as interactions
    left join temp.old_interactions as old
        on interactions.interaction_id = old.id
    where interactions.workload_id = $workload_id
),

targets as (
    select
        client_id,
        is_old,
        unnest(ids) as target_id
    from named
),

gone as (
    select
        client_id,
        target_id
    from targets
    where target_id is not null
    group by client_id, target_id
    having bool_and(is_old)
),

aimed as (
    select
        feedback_id,
        timestamp,
        client_id,
        coalesce(response_id, conversation_id, target_id) as target_id
    from raw.feedback
    where timestamp < $before
)

select
    aimed.feedback_id as id,
    aimed.timestamp,
    strftime(aimed.timestamp, '%Y-%m') as month
from aimed
semi join gone using (client_id, target_id)
anti join needed on aimed.feedback_id = needed.id
