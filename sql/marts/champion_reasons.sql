-- One row per person and reason of champion changes in the workload, or in all of them (null).
-- Reads raw.champion_journal.

select distinct
    asked_by,
    reason
from raw.champion_journal
where $workload_id::varchar is null or workload_id = $workload_id
order by asked_by, reason
