-- Tools that the workload offers in the holdout and elsewhere, or on the validation side and to
-- train on, where it is split by tools.

with

offered as (
    select
        side,
        unnest(tool_names) as tool_name
    from curated.examples
    where workload_id = $workload_id and split_by = 'tools'
)

select tool_name
from offered
group by tool_name
having count(distinct side) > 1
