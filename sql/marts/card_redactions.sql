-- One row per kind of value that redaction replaced in the workload, the most frequent first.
-- Reads curated.redactions.

select
    kind,
    interactions,
    distinct_values,
    replacements
from curated.redactions
where workload_id = $workload_id
order by replacements desc, kind asc
