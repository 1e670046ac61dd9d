-- One row per workload of the interactions that were collected, the largest first: how many, since
-- when, and from which files. Reads raw.interactions and raw.files.

with

files as (
    select
        digest as file_digest,
        min(path) as file_path
    from raw.files
    group by digest
)

select
    workload_id,
    count(*) as interactions,
    count(distinct client_id) as clients,
    min(timestamp) as first_at,
    max(timestamp) as last_at,
    list_sort(list(distinct file_path)) as paths
from raw.interactions
inner join files using (file_digest)
group by workload_id
order by interactions desc, workload_id asc
