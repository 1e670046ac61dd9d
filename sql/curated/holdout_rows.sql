-- One row per request that the workload's holdout has for the first time, with the version that is
-- the newest. Reads curated.examples, curated.holdout_versions and curated.holdout_rows.

select
    examples.workload_id,
    examples.example_id,
    (
        select max(versions.version)
        from curated.holdout_versions as versions
        where versions.workload_id = $workload_id
    ) as since_version
from curated.examples as examples
anti join curated.holdout_rows using (workload_id, example_id)
where examples.workload_id = $workload_id and examples.side = 'holdout'
