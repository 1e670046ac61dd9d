-- One row per interaction to judge, in the order of their places, then those with equal tools
-- together, which are then read once. Reads candidates, a view of staging/candidates, and unjudged,
-- which curate hands over, one row per interaction.

select
    candidates.interaction_id,
    candidates.workload_id,
    candidates.example_id,
    candidates.logged_at,
    candidates.messages,
    candidates.tools,
    candidates.message,
    candidates.finish_reason,
    candidates.is_corrected,
    candidates.acceptable,
    candidates.conversation_id,
    candidates.user_id,
    candidates.logged_message,
    candidates.released
from candidates
inner join unjudged using (interaction_id)
order by unjudged.place asc, candidates.tools_digest asc, candidates.interaction_id asc
