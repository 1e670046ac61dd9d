-- Interactions of the workload that were not judged exactly once.

select
    interactions.interaction_id,
    count(verdicts.interaction_id) as verdicts
from raw.interactions as interactions
left join curated.verdicts as verdicts using (interaction_id, workload_id)
where interactions.workload_id = $workload_id
group by interactions.interaction_id
having count(verdicts.interaction_id) != 1
