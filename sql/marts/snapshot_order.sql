-- One row per example on one side of the workload, in the order that its snapshot holds them.
-- Reads temp.frozen.

select
    example_id,
    cluster_id,
    bytes
from temp.frozen
where side = $side
order by example_id
