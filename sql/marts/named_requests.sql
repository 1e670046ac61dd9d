-- One row per request of the named interactions, as feedback rows are written from it.
-- Reads staging.interactions and staging.texts, and named (interaction_id), which curation
-- registers.

select
    interactions.interaction_id,
    texts.messages,
    texts.tools,
    interactions.client_id
from staging.interactions as interactions
inner join staging.texts as texts using (interaction_id)
semi join named on interactions.interaction_id = named.interaction_id
