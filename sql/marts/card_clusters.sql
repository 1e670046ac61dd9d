-- One row: how many of the workload's requests have near-duplicates, in how many clusters, and how
-- many the largest has. Reads curated.standings.

with

clusters as (
    select
        cluster_id,
        count(distinct ties[1]) as requests
    from curated.standings
    where workload_id = $workload_id and cluster_id is not null
    group by cluster_id
    having count(distinct ties[1]) > 1
)

select
    count(*) as clusters,
    coalesce(sum(requests), 0)::bigint as requests,
    coalesce(max(requests), 0) as largest
from clusters
