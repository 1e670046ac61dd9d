-- Requests of the workload that became more than one example.

select
    example_id,
    count(*) as examples
from curated.examples
where workload_id = $workload_id
group by example_id
having count(*) > 1
