-- One row per interaction of the workload that labelled lines name: what feedback on it is aimed
-- at. Reads raw.interactions, and named (interaction_id), which review hands over.

select
    interactions.interaction_id,
    interactions.client_id,
    json_extract_string(
        coalesce(interactions.record, interactions.payload), '$.response.id'
    ) as response_id
from raw.interactions as interactions
semi join named using (interaction_id)
where interactions.workload_id = $workload_id
