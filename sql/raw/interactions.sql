-- One row per interaction of the batch that the warehouse has not seen, the first of equal ones.
-- Reads temp.interactions and raw.interactions.

with

fresh as (
    select min(incoming.line) as line
    from temp.interactions as incoming
    anti join raw.interactions as known using (interaction_id, timestamp)
    where incoming.objection is null
    group by incoming.interaction_id
)

select
    incoming.interaction_id,
    incoming.timestamp,
    incoming.workload_id,
    incoming.client_id,
    incoming.content as payload,
    $digest as file_digest,
    incoming.line
from temp.interactions as incoming
semi join fresh using (line)
