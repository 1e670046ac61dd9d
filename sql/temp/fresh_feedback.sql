-- One row per feedback of the batch that the warehouse has not seen, the first of equal ones.
-- What was erased is not fresh: it stays away. Reads found (what the batch holds), which collect
-- hands over, temp.passed, raw.feedback, raw.archived, raw.erased and raw.erasure_key.

with

known as (
    select
        feedback_id,
        timestamp
    from raw.feedback
    where timestamp between $earliest and $latest
    union all
    select
        id as feedback_id,
        timestamp
    from raw.archived
    where kind = 'feedback' and timestamp between $earliest and $latest
    union all
    select
        id as feedback_id,
        timestamp
    from temp.passed
    where kind = 'feedback' and timestamp between $earliest and $latest
),

erased as (
    select digest
    from raw.erased
    where kind = 'feedback'
)

select
    incoming.feedback_id as id,
    incoming.timestamp,
    min(incoming.ordinal) as ordinal
from found as incoming
anti join known using (feedback_id, timestamp)
anti join erased
    on
        sha256((select key from raw.erasure_key) || incoming.feedback_id)
        = erased.digest
where incoming.objection is null
group by incoming.feedback_id, incoming.timestamp
