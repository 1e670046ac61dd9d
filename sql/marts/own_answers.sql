-- One row per named interaction that a version of ours answered, with the version's number. Reads
-- raw.contents.

with

named as (
    select unnest($interaction_ids::varchar[]) as interaction_id
)

select
    interaction_id,
    extra ->> '$.served.version' as version
from raw.contents
semi join named using (interaction_id)
where extra ->> '$.served.version' is not null
order by interaction_id
