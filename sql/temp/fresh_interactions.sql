-- One row per interaction of the batch that the warehouse has not seen, the first of equal ones.
-- What was erased is not fresh: it stays away. Reads found (what the batch holds), which collect
-- hands over, temp.passed, raw.interactions, raw.archived, raw.erased and raw.erasure_key.

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
),

erased as (
    select digest
    from raw.erased
    where kind = 'interactions'
)

select
    incoming.interaction_id as id,
    incoming.timestamp,
    min(incoming.ordinal) as ordinal
from found as incoming
anti join known using (interaction_id, timestamp)
anti join erased
    on
        sha256((select key from raw.erasure_key) || incoming.interaction_id)
        = erased.digest
where incoming.objection is null
group by incoming.interaction_id, incoming.timestamp
