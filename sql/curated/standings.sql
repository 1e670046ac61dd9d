-- One row per interaction of the workload that was placed on a side, whether it becomes an example
-- or not. A copy is of the component of the one that stands for it. Reads curated.verdicts and, one
-- row per interaction, what curate hands over: judgements, and clusters, the components of those
-- that stand for themselves.

select
    judgements.interaction_id,
    judgements.workload_id,
    $split as split_by,
    judgements.ties,
    judgements.cluster_id,
    clusters.component_id,
    judgements.label,
    judgements.side,
    judgements.stratum,
    judgements.draw_id
from judgements
left join curated.verdicts as verdicts using (workload_id, interaction_id)
left join clusters on verdicts.representative_id = clusters.interaction_id
where judgements.side is not null
