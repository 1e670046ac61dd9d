-- One row per example on the training side of the workload, as caps and budgets see it.
-- Reads curated.examples.

select
    example_id,
    client_id,
    nullif(label, 'text') as label,
    len(feedback_ids) > 0 as is_vouched
from curated.examples
where workload_id = $workload_id and side = 'train'
order by example_id
