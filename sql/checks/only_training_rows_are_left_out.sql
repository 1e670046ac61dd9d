-- Interactions of the workload that a cap or a budget leaves out though they are not trained on.

select
    verdicts.interaction_id,
    verdicts.objection,
    standings.side
from curated.verdicts as verdicts
inner join curated.standings as standings using (workload_id, interaction_id)
where
    verdicts.workload_id = $workload_id
    and verdicts.objection in ('over_label_cap', 'over_client_cap', 'over_budget')
    and standings.side != 'train'
