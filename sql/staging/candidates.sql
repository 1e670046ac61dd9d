-- One row per interaction of the workload under curation, as the rules read it; `logged_message` is
-- what production answered, where somebody corrected it; null if that was cut off before its end by
-- client or engine, as nobody knows the rest. An id of a conversation or a user is its
-- owner's; where another client logs the same, it names another one, so that nobody is tied to rows
-- of others by ids that he can write. Reads staging.interactions, staging.texts, staging.answers,
-- staging.shared_names and curated.releases.

with

released as (
    select
        interaction_id,
        list(rule order by rule) as rules
    from curated.releases
    group by interaction_id
),

owned as (
    select
        *,
        coalesce(party_id, client_id) as owner_id
    from staging.interactions
)

select
    interactions.interaction_id,
    interactions.workload_id,
    interactions.example_id,
    interactions.logged_at,
    texts.messages,
    texts.messages_digest,
    texts.tools,
    texts.tools_digest,
    texts.acceptable,
    texts.acceptable_digest,
    case when answers.correction is null then interactions.finish_reason end as finish_reason,
    coalesce(answers.is_corrected, false) as is_corrected,
    coalesce(answers.correction, texts.message) as message,
    case when answers.is_corrected then md5(answers.correction) else texts.message_digest end
        as message_digest,
    case
        when conversations.first_client_id != interactions.owner_id
            then interactions.owner_id || chr(10) || interactions.conversation_id
        else interactions.conversation_id
    end as conversation_id,
    case
        when people.first_client_id != interactions.owner_id
            then interactions.owner_id || chr(10) || interactions.user_id
        else interactions.user_id
    end as user_id,
    case
        when
            answers.is_corrected
            and coalesce(interactions.finish_reason, '') not in (
                'client_gone', 'upstream_cut', 'several_answers'
            )
            then texts.message
    end as logged_message,
    case
        when
            answers.is_corrected
            and coalesce(interactions.finish_reason, '') not in (
                'client_gone', 'upstream_cut', 'several_answers'
            )
            then texts.message_digest
    end as logged_message_digest,
    coalesce(released.rules, []) as released
from owned as interactions
inner join staging.texts as texts using (interaction_id)
left join staging.answers as answers using (interaction_id)
left join released using (interaction_id)
left join staging.shared_names as conversations
    on
        conversations.name_kind = 'conversation'
        and interactions.conversation_id = conversations.shared_name
left join staging.shared_names as people
    on people.name_kind = 'user' and interactions.user_id = people.shared_name
