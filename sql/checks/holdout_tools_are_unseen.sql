-- Tools that the workload offers in the holdout and elsewhere, where it is split by tools.

with

offered as (
    select
        side = 'holdout' as is_held_out,
        unnest(tool_names) as tool_name
    from curated.examples
    where workload_id = $workload_id and split_by = 'tools'
)

select tool_name
from offered
group by tool_name
having count(distinct is_held_out) > 1
