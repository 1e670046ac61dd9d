-- One row per request of the named interactions, as feedback rows are written from it.
-- Reads staging.interactions, and named (interaction_id), which curation registers.

select
    interaction_id,
    messages,
    tools,
    client_id
from staging.interactions
semi join named using (interaction_id)
