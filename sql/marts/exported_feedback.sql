-- One row per feedback, of one workload or (null) of all, in the order of time: its canonical
-- record as one line of JSON. Reads raw.feedback.

select json(coalesce(record, payload))::varchar as line
from raw.feedback
where $workload_id::varchar is null or workload_id = $workload_id
order by timestamp, feedback_id
