-- One row per rule that found something in the workload without dropping it, and what was done, the
-- most frequent first. Reads marts.rules.

select
    rule,
    disposition,
    interactions
from marts.rules
where workload_id = $workload_id and disposition != 'drop'
order by interactions desc, rule asc, disposition asc
