-- One row per interaction of the batch that the warehouse has not seen, the first of equal ones.
-- Reads temp.interactions, raw.interactions, raw.archived and lines, which collect hands over.

with

known as (
    select
        interaction_id,
        timestamp
    from raw.interactions
    where timestamp between $earliest and $latest
    union all
    select
        id as interaction_id,
        timestamp
    from raw.archived
    where kind = 'interactions' and timestamp between $earliest and $latest
),

fresh as (
    select min(incoming.ordinal) as ordinal
    from temp.interactions as incoming
    anti join known using (interaction_id, timestamp)
    where incoming.objection is null
    group by incoming.interaction_id
)

select
    incoming.interaction_id,
    incoming.timestamp,
    incoming.workload_id,
    incoming.client_id,
    lines.content as payload,
    lines.record,
    $source_name as source,
    $digest as file_digest,
    incoming.line
from lines
inner join temp.interactions as incoming using (ordinal)
semi join fresh using (ordinal)
