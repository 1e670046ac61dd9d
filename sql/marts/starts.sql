-- One row per entry of the book of starts, the newest first: those of one workload, or (null) of
-- all. Reads raw.starts.

select
    start_id,
    workload_id,
    cause,
    started,
    reason,
    looked_at,
    flow_run_id
from raw.starts
where $workload_id::varchar is null or workload_id = $workload_id
order by looked_at desc, start_id asc
limit $most::bigint
