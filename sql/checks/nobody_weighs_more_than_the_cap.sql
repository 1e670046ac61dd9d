-- Actors of the workload whose feedback counts for more than their share of the whole.

select
    client_id,
    actor_id,
    share_after,
    cap
from curated.shares
where workload_id = $workload_id and share_after > cap + 1e-6
