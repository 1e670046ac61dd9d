-- One row per interaction of the batch that the warehouse has not seen, the first of equal ones.
-- Reads temp.interactions, temp.passed, raw.interactions and raw.archived.

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
    union all
    select
        id as interaction_id,
        timestamp
    from temp.passed
    where kind = 'interactions' and timestamp between $earliest and $latest
)

select
    incoming.interaction_id as id,
    incoming.timestamp,
    min(incoming.ordinal) as ordinal
from temp.interactions as incoming
anti join known using (interaction_id, timestamp)
where incoming.objection is null
group by incoming.interaction_id, incoming.timestamp
