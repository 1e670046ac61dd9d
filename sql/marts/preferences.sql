-- One row per pair on one side of the workload, in the order that its snapshot holds them. A
-- cluster is named by its smallest pair on the side. Reads curated.preferences.

select
    preference_id,
    source,
    group_id,
    client_id,
    language,
    messages,
    tools,
    chosen,
    rejected,
    weight,
    interaction_ids,
    feedback_ids,
    min(preference_id) over (
        partition by coalesce(cluster_id, group_id, preference_id)
    ) as cluster_id
from curated.preferences
where workload_id = $workload_id and side = $side
order by preference_id
