-- One row per example on one side of the workload, in the order that its snapshot holds them; what
-- production answered goes only where it is scored. A cluster is named by its smallest request on
-- the side, so that names of the holdout's don't change with what is trained on.
-- Reads curated.examples.

with

-- Not a window over the examples, which would carry their texts.
clusters as (
    select
        coalesce(cluster_id, group_id) as unit_id,
        min(example_id) as cluster_id
    from curated.examples
    where workload_id = $workload_id and side = $side
    group by coalesce(cluster_id, group_id)
)

select
    examples.example_id,
    examples.messages,
    examples.tools,
    examples.answer,
    examples.acceptable,
    examples.weight,
    examples.group_id,
    examples.label,
    examples.language,
    examples.client_id,
    examples.logged_at,
    examples.interaction_ids,
    examples.feedback_ids,
    clusters.cluster_id,
    case when examples.side = 'holdout' then examples.logged_answer end as logged_answer
from curated.examples as examples
inner join clusters on coalesce(examples.cluster_id, examples.group_id) = clusters.unit_id
where examples.workload_id = $workload_id and examples.side = $side
order by examples.example_id
