-- Groups of the workload whose examples stand on both sides, or not where a snapshot settled them.

with

standing as (
    select
        workload_id,
        group_id,
        side
    from curated.examples
    where workload_id = $workload_id
    union all
    select
        workload_id,
        group_id,
        side
    from curated.sides
    where workload_id = $workload_id
)

select
    group_id,
    count(distinct side) as sides
from standing
group by group_id
having count(distinct side) > 1
