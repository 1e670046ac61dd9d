-- One row per actor of whose feedback in the workload something is held back, most of it first.
-- Reads curated.shares.

select
    client_id,
    actor_id,
    signals,
    kept,
    share_before,
    share_after,
    cap
from curated.shares
where workload_id = $workload_id and kept < signals
order by signals - kept desc, client_id asc, actor_id asc
