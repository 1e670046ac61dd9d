-- One row per interaction, of one workload or (null) of all, in the order of time: its canonical
-- record as one line of JSON. Reads raw.interactions.

select json(coalesce(record, payload))::varchar as line
from raw.interactions
where $workload_id::varchar is null or workload_id = $workload_id
order by timestamp, interaction_id
