-- One row per workload and kind of thing that the warehouse holds of it, with their number. Reads
-- the raw tables.

with

held as (
    select
        workload_id,
        'interactions' as kind
    from raw.interactions
    union all
    select
        workload_id,
        'feedback' as kind
    from raw.feedback
    union all
    select
        workload_id,
        'quarantined' as kind
    from raw.quarantine
    union all
    select
        workload_id,
        kind
    from raw.manifests
    union all
    select
        workload_id,
        'looks' as kind
    from raw.looks
    union all
    select
        workload_id,
        'decisions' as kind
    from raw.decisions
)

select
    workload_id,
    kind,
    count(*) as things
from held
group by workload_id, kind
order by workload_id, kind
