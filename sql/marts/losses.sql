-- One row per rule that left out more of a workload than may pass unasked, and which nobody has let
-- pass, or only when it was less by more than $growth; the largest loss first. Reads curated.losses
-- and curated.released_losses.

select
    losses.workload_id,
    losses.rule,
    losses.interactions,
    losses.requests
from curated.losses as losses
where
    ($workload_id::varchar is null or losses.workload_id = $workload_id)
    and not exists (
        select 1
        from curated.released_losses as released
        where
            released.workload_id = losses.workload_id
            and released.rule = losses.rule
            and losses.interactions <= (released.share + $growth) * losses.requests
    )
order by losses.workload_id asc, losses.interactions desc, losses.rule asc
