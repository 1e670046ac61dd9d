-- One row per feedback of the batch that the warehouse has not seen, the first of equal ones.
-- Reads temp.feedback and raw.feedback.

with

fresh as (
    select min(incoming.line) as line
    from temp.feedback as incoming
    anti join raw.feedback as known using (feedback_id, timestamp)
    where incoming.objection is null
    group by incoming.feedback_id
)

select
    incoming.feedback_id,
    incoming.timestamp,
    incoming.workload_id,
    incoming.client_id,
    incoming.response_id,
    incoming.actor_id,
    incoming.kind,
    incoming.content as payload,
    $digest as file_digest,
    incoming.line
from temp.feedback as incoming
semi join fresh using (line)
