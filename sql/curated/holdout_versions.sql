-- One row: the version that the workload's holdout becomes, with how many of its requests were in
-- no version before. Reads curated.examples, curated.holdout_versions and curated.holdout_rows.

with

latest as (
    select coalesce(max(version), 0) as version
    from curated.holdout_versions
    where workload_id = $workload_id
),

held_out as (
    select example_id
    from curated.examples
    where workload_id = $workload_id and side = 'holdout'
),

known as (
    select example_id
    from curated.holdout_rows
    where workload_id = $workload_id
)

select
    $workload_id::varchar as workload_id,
    $digest::varchar as digest,
    $frozen_at::timestamptz as frozen_at,
    latest.version + 1 as version,
    (select count(*) from held_out) as requests,
    (select count(*) from held_out anti join known using (example_id)) as added_requests
from latest
