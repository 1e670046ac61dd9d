-- Interactions of the workload that are kept more than once.

select
    interaction_id,
    count(*) as copies
from raw.interactions
where workload_id = $workload_id
group by interaction_id
having count(*) > 1
