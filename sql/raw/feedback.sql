-- One row per feedback that the warehouse has not seen, the first of equal ones.
-- Reads judged, the rows of the lines that were found to be feedback, which collect hands over.

select
    feedback_id,
    timestamp,
    workload_id,
    client_id,
    response_id,
    conversation_id,
    target_id,
    actor_id,
    kind,
    content as payload,
    record,
    $source_name as source,
    file_digest,
    line
from judged
where is_fresh
