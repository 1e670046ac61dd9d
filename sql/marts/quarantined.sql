-- One row per source, reason and file with lines in quarantine, the most frequent first.
-- Reads raw.quarantine.

select
    source,
    reason,
    path,
    count(*) as line_count,
    min(quarantine_id) as first_id
from raw.quarantine
group by source, reason, path
order by line_count desc, source asc, reason asc, path asc
