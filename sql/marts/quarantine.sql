-- One row per line in quarantine, those of one file and source together.
-- Reads raw.quarantine.

select
    quarantine_id,
    path,
    file_digest,
    line,
    reason,
    content,
    source,
    workload_id,
    client_id
from raw.quarantine
where
    starts_with(quarantine_id, $beginning)
    and (
        $quarantine_ids::varchar[] is null
        or quarantine_id in (select unnest($quarantine_ids::varchar[]))
    )
order by file_digest, source, workload_id, client_id, path, line
