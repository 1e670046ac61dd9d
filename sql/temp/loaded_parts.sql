-- One row per part of a call that was loaded before and of which a load has parts again. Reads
-- raw.loaded_parts and arrived (call_digest), which the load hands over.

select
    parts.call_digest,
    parts.part_digest
from raw.loaded_parts as parts
semi join arrived using (call_digest)
where parts.client_id = $client_id
