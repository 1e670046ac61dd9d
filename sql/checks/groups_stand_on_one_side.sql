-- Ties (a request, a conversation, a user, a set of tools, a cluster) of the workload's examples
-- that stand on several sides.

with

standing as (
    select
        standings.side,
        unnest(list_append(standings.ties, 'cluster ' || standings.cluster_id)) as tie
    from curated.verdicts as verdicts
    inner join curated.standings as standings using (workload_id, interaction_id)
    where verdicts.workload_id = $workload_id and verdicts.objection is null
)

select
    tie,
    list_sort([min(side), max(side)]) as sides
from standing
where tie is not null
group by tie
having min(side) != max(side)
