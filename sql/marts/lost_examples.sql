-- One row per request that a rule left out of a workload, some of them, with what was asked last.
-- Reads curated.verdicts and raw.contents.

select
    verdicts.interaction_id,
    verdicts.mark,
    contents.request ->> '$.messages[#-1].content' as asked
from curated.verdicts as verdicts
inner join raw.contents as contents using (interaction_id)
where verdicts.workload_id = $workload_id and verdicts.objection = $rule
order by verdicts.interaction_id
limit $shown
