-- One row per logged answer of a workload: its id, the model that it names, and the version and the
-- arm that the gateway recorded with it. Reads raw.interactions.

select
    coalesce(record, payload) ->> '$.response.id' as response_id,
    coalesce(coalesce(record, payload) ->> '$.response.model', '') as model_name,
    coalesce(record, payload) ->> '$.served.version' as version,
    coalesce(coalesce(record, payload) ->> '$.served.arm', '') as arm
from raw.interactions
where workload_id = $workload_id
order by response_id, interaction_id
