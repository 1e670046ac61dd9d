-- One row per example that is tested or validated on and that was requested with a JSON Schema for
-- its answer. A schema that fewer than $fewest of them share is left out, since it may be made of
-- one request, with its personal data. Reads curated.examples and staging.texts.

with

logged as (
    select
        example_id,
        unnest(interaction_ids) as interaction_id
    from curated.examples
    where workload_id = $workload_id and side != 'train'
),

requested as (
    select
        logged.example_id,
        min(texts.response_schema) as response_schema
    from logged
    inner join staging.texts as texts using (interaction_id)
    where texts.response_schema is not null
    group by logged.example_id
),

shared as (
    select response_schema
    from requested
    group by response_schema
    having count(*) >= $fewest
)

select
    requested.example_id,
    requested.response_schema
from requested
semi join shared using (response_schema)
order by requested.example_id
