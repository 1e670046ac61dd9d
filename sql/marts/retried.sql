-- One row per line in quarantine, of one source or of all; `bytes` are the line's. `group_number`
-- numbers the files. Reads raw.quarantine.

select
    quarantine_id,
    octet_length(content) as bytes,
    dense_rank() over (
        order by source, workload_id, client_id, file_digest, path
    ) as group_number
from raw.quarantine
where $source_name::varchar is null or source = $source_name
order by group_number, line, quarantine_id
