-- One row per interaction of the workload under curation, as the rules read it; `logged_message` is
-- what production answered, where somebody corrected it.
-- Reads staging.interactions, staging.answers and curated.releases.

with

released as (
    select
        interaction_id,
        list(rule order by rule) as rules
    from curated.releases
    group by interaction_id
)

select
    interactions.interaction_id,
    interactions.workload_id,
    interactions.example_id,
    interactions.logged_at,
    interactions.conversation_id,
    interactions.user_id,
    interactions.messages,
    interactions.tools,
    answers.message,
    answers.finish_reason,
    answers.is_corrected,
    interactions.acceptable,
    case when answers.is_corrected then interactions.message end as logged_message,
    coalesce(released.rules, []) as released
from staging.interactions as interactions
inner join staging.answers as answers using (interaction_id)
left join released using (interaction_id)
order by interactions.interaction_id
