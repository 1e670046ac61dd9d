-- One row per example on one side of the workload, in the order that its snapshot holds them, with
-- the bytes of its texts. A cluster is named by its smallest request on the side, so that names of
-- the holdout's don't change with what is trained on. Reads curated.examples.

with

-- Not a window over the examples, which would carry more of them.
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
    clusters.cluster_id,
    strlen(examples.messages)
    + strlen(examples.tools)
    + strlen(examples.answer)
    + coalesce(strlen(examples.acceptable), 0)
    + coalesce(strlen(examples.logged_answer), 0) as bytes
from curated.examples as examples
inner join clusters on coalesce(examples.cluster_id, examples.group_id) = clusters.unit_id
where examples.workload_id = $workload_id and examples.side = $side
order by examples.example_id
