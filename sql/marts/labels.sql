-- One row per labelled answer of the workload, in the order that its snapshot holds them.
-- Reads curated.labels.

select
    label_id,
    messages,
    tools,
    answer,
    is_good,
    weight,
    interaction_ids,
    feedback_ids
from curated.labels
where workload_id = $workload_id
order by label_id
