-- One row: since when a workload's traffic is new. What came before was there when the curation of
-- a turn began that came to its end; one that failed, or whose data set was held for people, has
-- learned nothing, and one of after $now began before the clock was set back. Null without such a
-- turn. Reads raw.manifests.

with

stages as (
    select
        unnest(from_json(manifest -> '$.stages', '[{"name": "VARCHAR", "began": "VARCHAR"}]'))
            as turn_stage
    from raw.manifests
    where
        workload_id = $workload_id
        and kind = 'turn'
        and json_extract_string(manifest, '$.ending') is distinct from 'held'
),

curations as (
    select struct_extract(turn_stage, 'began')::timestamptz as began_at
    from stages
    where struct_extract(turn_stage, 'name') = 'curate'
)

select max(began_at) as learned_until
from curations
where began_at <= $now
