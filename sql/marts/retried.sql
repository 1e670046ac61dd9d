-- One row per line in quarantine, of one source or of all; `bytes` are the line's. `group_number`
-- numbers what is read together: the lines of a file, or all of a workload and client of a source
-- of `$joining`, whose records have lines in several files. Reads raw.quarantine.

with

named as (
    select
        quarantine_id,
        source,
        workload_id,
        client_id,
        line,
        octet_length(content) as bytes,
        case when not list_contains($joining, source) then file_digest end as file_name,
        case when not list_contains($joining, source) then path end as file_path
    from raw.quarantine
    where $source_name::varchar is null or source = $source_name
)

select
    quarantine_id,
    bytes,
    dense_rank() over (
        order by source, workload_id, client_id, file_name, file_path
    ) as group_number
from named
order by group_number, line, quarantine_id
