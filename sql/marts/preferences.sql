-- One row per pair on one side of the workload, in the order that its snapshot holds them.
-- Reads curated.preferences.

select
    preference_id,
    source,
    group_id,
    client_id,
    language,
    messages,
    tools,
    chosen,
    rejected,
    weight,
    interaction_ids,
    feedback_ids
from curated.preferences
where workload_id = $workload_id and side = $side
order by preference_id
