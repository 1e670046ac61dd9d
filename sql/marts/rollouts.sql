-- One row per step of a canary, of a workload or of all (null), in the order in which they were
-- written. Reads raw.rollouts.

select
    rollout_id,
    workload_id,
    step,
    version,
    champion,
    evidence_digest,
    adapter_key,
    outcome,
    note,
    noted_at,
    record::varchar as record
from raw.rollouts
where $workload_id::varchar is null or workload_id = $workload_id
order by
    noted_at, rollout_id,
    list_position(['intended', 'started', 'undecided', 'ended', 'settled'], step)
