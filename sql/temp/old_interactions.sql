-- One row per interaction of the workload that retention takes out of raw: it is older than
-- `before`, has a time at all, and nothing needs it. Reads raw.interactions and needed (id), which
-- retention hands over.

select
    interactions.interaction_id as id,
    interactions.timestamp,
    strftime(interactions.timestamp, '%Y-%m') as month
from raw.interactions as interactions
anti join needed on interactions.interaction_id = needed.id
where
    interactions.workload_id = $workload_id
    and interactions.timestamp < $before
    and interactions.timestamp > '1970-01-01'::timestamptz
