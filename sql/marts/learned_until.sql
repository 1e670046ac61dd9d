-- One row: when the workload's newest snapshot was frozen, and when its last turn started; null
-- where there is none. Reads raw.manifests and raw.starts.

select
    (
        select max(recorded_at)
        from raw.manifests
        where workload_id = $workload_id and kind = 'snapshot'
    ) as frozen_at,
    (
        select max(looked_at)
        from raw.starts
        where workload_id = $workload_id and started
    ) as started_at
