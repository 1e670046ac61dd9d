-- One row per way in which people disagreed in the workload and it was resolved, the most frequent
-- first. Reads curated.conflicts.

select
    kind,
    method,
    if(resolution = 'undecided', 'undecided', 'resolved') as outcome,
    count(*) as found
from curated.conflicts
where workload_id = $workload_id
group by all
order by found desc, kind asc, method asc, outcome asc
