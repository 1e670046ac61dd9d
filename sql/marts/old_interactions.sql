-- One row per interaction of the month that retention exports, as raw has it.
-- Reads raw.interactions and temp.old_interactions.

select
    interactions.interaction_id,
    interactions.timestamp,
    interactions.workload_id,
    interactions.client_id,
    interactions.source,
    interactions.file_digest,
    interactions.line,
    interactions.payload,
    interactions.record
from raw.interactions as interactions
semi join temp.old_interactions as old
    on
        interactions.interaction_id = old.id
        and interactions.timestamp = old.timestamp
        and old.month = $month
order by interactions.timestamp, interactions.interaction_id
