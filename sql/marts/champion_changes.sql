-- One row per change of a workload's champion: its end, or its intention while it has none; the
-- oldest first. Reads raw.champion_journal.

select
    workload_id,
    number,
    step,
    kind,
    evidence_digest,
    adapter_key,
    version,
    champion_before,
    adapter_before,
    asked_by,
    reason,
    said,
    noted_at,
    rollout_id
from raw.champion_journal
where $workload_id is null or workload_id = $workload_id
qualify
    row_number() over (
        partition by workload_id, number
        order by step = 'intended' asc, noted_at desc
    ) = 1
order by workload_id, number
