-- One row: how many feedback signals of a workload were loaded after a time. A signal's own time
-- may be long before. Reads raw.feedback and raw.files.

with

loaded as (
    select
        digest as file_digest,
        min(loaded_at) as loaded_at
    from raw.files
    group by digest
)

select count(*) as signals
from raw.feedback
inner join loaded using (file_digest)
where feedback.workload_id = $workload_id and loaded.loaded_at > $since
