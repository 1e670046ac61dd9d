-- One row per objection of the workload's newest curation: how many different requests it left out,
-- and how many there are in all. Copies count once, whatever became of them: a robot may have sent
-- thousands. Reads curated.verdicts and staging.interactions.

with

judged as (
    select
        verdicts.objection as rule,
        coalesce(interactions.example_id, verdicts.interaction_id) as request_id
    from curated.verdicts as verdicts
    inner join staging.interactions as interactions using (interaction_id)
    where verdicts.workload_id = $workload_id
),

counted as (
    select count(distinct request_id) as requests
    from judged
)

select
    $workload_id::varchar as workload_id,
    judged.rule,
    counted.requests,
    count(distinct judged.request_id) as interactions
from judged
cross join counted
where judged.rule is not null
group by judged.rule, counted.requests
order by judged.rule
