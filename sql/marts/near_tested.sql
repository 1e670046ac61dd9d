-- One row per interaction of $learned that curation has not shown to be apart from the workload's
-- holdout: it is near to a tested request, overlaps with one, offers its tools, or was not
-- compared. Reads curated.verdicts.

with

learned as (
    select distinct unnest($learned::varchar[]) as interaction_id
),

compared as (
    select
        interaction_id,
        objection
    from curated.verdicts
    where workload_id = $workload_id
)

select learned.interaction_id
from learned
left join compared using (interaction_id)
where
    compared.interaction_id is null
    or compared.objection in ('near_holdout', 'overlaps_holdout', 'offers_holdout_tool')
order by learned.interaction_id
