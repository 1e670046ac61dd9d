-- Ties (a request, a conversation, a user, a set of tools, a cluster) of the workload's examples
-- that stand on several sides.

with

standing as (
    select
        examples.side,
        unnest(list_append(standings.ties, 'cluster ' || standings.cluster_id)) as tie
    from curated.examples as examples
    inner join curated.standings as standings
        on
            examples.workload_id = standings.workload_id
            and examples.example_id = standings.ties[1]
    where examples.workload_id = $workload_id
)

select
    tie,
    count(distinct side) as sides
from standing
where tie is not null
group by tie
having count(distinct side) > 1
