-- One row: since when a workload's traffic is new. What came before was there when the curation of
-- a turn began that came to its end (of one by an older release, when the turn began); one that
-- failed, or whose data set was held for people, has learned nothing, and one of after $now began
-- before the clock was set back. Null without such a turn. Reads raw.manifests and raw.starts.

with

turns as (
    select
        key,
        recorded_at,
        manifest
    from raw.manifests
    where
        workload_id = $workload_id
        and kind = 'turn'
        and json_extract_string(manifest, '$.ending') is distinct from 'held'
),

stages as (
    select
        key,
        unnest(from_json(manifest -> '$.stages', '[{"name": "VARCHAR", "began": "VARCHAR"}]'))
            as turn_stage
    from turns
),

curations as (
    select
        key,
        max(struct_extract(turn_stage, 'began')::timestamptz) as began_at
    from stages
    where struct_extract(turn_stage, 'name') = 'curate'
    group by key
)

select max(coalesce(curations.began_at, starts.looked_at, turns.recorded_at)) as learned_until
from turns
left join curations using (key)
left join raw.starts on turns.key = starts.flow_run_id
where coalesce(curations.began_at, starts.looked_at, turns.recorded_at) <= $now
