-- One row per source, reason and file with lines in quarantine, the most frequent first.
-- Reads raw.quarantine.

select
    source,
    reason,
    path,
    count(*) as found,
    min(quarantine_id) as first_id
from raw.quarantine
group by source, reason, path
order by found desc, source asc, reason asc, path asc
