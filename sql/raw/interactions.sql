-- One row per interaction that the warehouse has not seen in these words, the first of equal ones.
-- Reads judged, the rows of the lines that were found to be interactions, which collect hands over.

select
    interaction_id,
    timestamp,
    workload_id,
    client_id,
    content as payload,
    record,
    content_hash,
    likeness,
    $source_name as source,
    file_digest,
    line
from judged
where is_fresh
