-- One row per feedback of the batch that the warehouse has not seen, the first of equal ones.
-- Reads temp.feedback, raw.feedback, raw.archived and lines, which collect hands over.

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
),

fresh as (
    select min(incoming.ordinal) as ordinal
    from temp.feedback as incoming
    anti join known using (feedback_id, timestamp)
    where incoming.objection is null
    group by incoming.feedback_id
)

select
    incoming.feedback_id,
    incoming.timestamp,
    incoming.workload_id,
    incoming.client_id,
    incoming.response_id,
    incoming.conversation_id,
    incoming.target_id,
    incoming.actor_id,
    incoming.kind,
    lines.content as payload,
    lines.record,
    $source_name as source,
    $digest as file_digest,
    incoming.line
from lines
inner join temp.feedback as incoming using (ordinal)
semi join fresh using (ordinal)
