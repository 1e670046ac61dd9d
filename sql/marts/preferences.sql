-- One row per pair of the workload, in the order that its snapshot holds them.
-- Reads curated.preferences.

select
    preference_id,
    source,
    messages,
    tools,
    chosen,
    rejected,
    weight,
    interaction_ids,
    feedback_ids
from curated.preferences
where workload_id = $workload_id
order by preference_id
