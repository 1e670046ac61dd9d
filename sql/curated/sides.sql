-- One row per group of the workload's examples whose side no snapshot has settled yet.
-- Reads curated.examples and curated.sides.

select distinct
    examples.workload_id,
    examples.group_id,
    examples.split_by,
    examples.side,
    $settled_at::timestamptz as settled_at
from curated.examples as examples
anti join curated.sides using (workload_id, group_id)
where examples.workload_id = $workload_id
