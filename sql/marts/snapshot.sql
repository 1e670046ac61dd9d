-- One row per example on one side of the workload, in the order that its snapshot holds them; what
-- production answered goes only where it is scored. A cluster is named by its smallest request on
-- the side, so that names of the holdout's don't change with what is trained on.
-- Reads curated.examples.

select
    example_id,
    messages,
    tools,
    answer,
    acceptable,
    weight,
    group_id,
    label,
    language,
    client_id,
    logged_at,
    interaction_ids,
    feedback_ids,
    min(example_id) over (partition by coalesce(cluster_id, group_id)) as cluster_id,
    case when side = 'holdout' then logged_answer end as logged_answer
from curated.examples
where workload_id = $workload_id and side = $side
order by example_id
