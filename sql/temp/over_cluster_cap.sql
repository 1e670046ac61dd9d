-- One row per held-out request of the workload beyond the first $holdout_per_cluster of its
-- component, those of the earliest versions of the holdout first, then by the hash of their ids.
-- Reads curated.verdicts, curated.standings, curated.holdout_rows and staging.redacted.

with

tested as (
    select
        verdicts.interaction_id,
        count(*) over (partition by standings.component_id) as cluster_requests,
        row_number() over (
            partition by standings.component_id
            order by held.since_version asc nulls last, md5(redacted.example_id) asc
        ) as place
    from curated.verdicts as verdicts
    inner join curated.standings as standings using (workload_id, interaction_id)
    inner join staging.redacted as redacted using (interaction_id)
    left join curated.holdout_rows as held
        on verdicts.workload_id = held.workload_id and redacted.example_id = held.example_id
    where
        verdicts.workload_id = $workload_id
        and verdicts.objection is null
        and standings.side = 'holdout'
)

select
    interaction_id,
    'cluster of ' || cluster_requests || ' held-out requests, capped at '
    || $holdout_per_cluster::bigint as mark
from tested
where place > $holdout_per_cluster::bigint
