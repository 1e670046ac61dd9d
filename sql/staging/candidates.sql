-- One row per interaction of the workload under curation, as the rules read it.
-- Reads staging.interactions and staging.answers.

select
    interactions.interaction_id,
    interactions.example_id,
    interactions.logged_at,
    interactions.conversation_id,
    interactions.user_id,
    interactions.messages,
    interactions.tools,
    answers.message,
    answers.finish_reason,
    answers.is_corrected,
    answers.thumbs_down,
    interactions.acceptable
from staging.interactions as interactions
inner join staging.answers as answers using (interaction_id)
order by interactions.interaction_id
