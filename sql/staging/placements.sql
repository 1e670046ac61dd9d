-- One row per interaction of the workload that a signal names: where it stands, with which group
-- and cluster, and what keeps its request from being learned from, null if nothing does. A copy
-- stands as the one that stands for it. Reads staging.judged, curated.standings and
-- curated.verdicts.

select
    judged.interaction_id,
    standings.side,
    standings.component_id as cluster_id,
    standings.ties[2] as group_id,
    coalesce(representatives.objection, verdicts.objection) as objection
from staging.judged as judged
inner join curated.verdicts as verdicts
    on
        judged.interaction_id = verdicts.interaction_id
        and verdicts.workload_id = $workload_id
left join curated.standings as standings
    on
        verdicts.interaction_id = standings.interaction_id
        and verdicts.workload_id = standings.workload_id
left join curated.verdicts as representatives
    on
        verdicts.representative_id = representatives.interaction_id
        and verdicts.workload_id = representatives.workload_id
order by judged.interaction_id
