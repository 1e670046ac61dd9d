-- One row: since when a workload's traffic is new. What came before was there when a turn began
-- that came to its end; one that failed, or whose data set was held for people, has learned
-- nothing, and one of after $now began before the clock was set back. Null without such a turn.
-- Reads raw.manifests and raw.starts.

select max(coalesce(starts.looked_at, turns.recorded_at)) as learned_until
from raw.manifests as turns
left join raw.starts on turns.key = starts.flow_run_id
where
    turns.workload_id = $workload_id
    and turns.kind = 'turn'
    and json_extract_string(turns.manifest, '$.ending') is distinct from 'held'
    and coalesce(starts.looked_at, turns.recorded_at) <= $now
