-- One row per feedback that counts in the workload under curation, with the interactions that it is
-- about: those of the response, or all of the conversation. Of the responses that a choice or a
-- regenerate names it gives one interaction each, null while that has not arrived; its messages
-- stay in `value`. Reads staging.feedback and staging.interactions.

with

about as (
    select
        feedback.feedback_id,
        list(interactions.interaction_id order by interactions.interaction_id) as interaction_ids
    from staging.feedback as feedback
    inner join staging.interactions as interactions
        on
            feedback.client_id = interactions.client_id
            and feedback.response_id = interactions.response_id
    group by feedback.feedback_id
    union all
    select
        feedback.feedback_id,
        list(interactions.interaction_id order by interactions.interaction_id) as interaction_ids
    from staging.feedback as feedback
    inner join staging.interactions as interactions
        on
            feedback.client_id = interactions.client_id
            and feedback.conversation_id
            = coalesce(interactions.conversation_id, interactions.trace_id)
    where feedback.response_id is null
    group by feedback.feedback_id
),

named as (
    select
        feedback_id,
        client_id,
        actor_id,
        kind,
        given_at,
        value,
        scale,
        is_waiting,
        if(json_type(value, '$.chosen') = 'VARCHAR', value ->> '$.chosen', null) as chosen,
        if(json_type(value, '$.rejected') = 'VARCHAR', value ->> '$.rejected', null) as rejected,
        case when kind = 'regenerate' and json_type(value) = 'VARCHAR' then value ->> '$' end
            as renewed
    from staging.feedback
),

-- Few responses are named: the others are left out before they are grouped.
mentioned as (
    select distinct
        client_id,
        unnest([chosen, rejected, renewed]) as response_id
    from named
),

logged as (
    select
        client_id,
        response_id,
        min(interaction_id) as interaction_id
    from staging.interactions
    semi join mentioned using (client_id, response_id)
    group by client_id, response_id
)

select
    named.feedback_id,
    named.client_id,
    named.actor_id,
    named.kind,
    named.given_at,
    named.value::varchar as value,
    named.scale::varchar as scale,
    named.is_waiting,
    chosen.interaction_id as chosen_id,
    rejected.interaction_id as rejected_id,
    renewed.interaction_id as renewed_id,
    coalesce(about.interaction_ids, []) as interaction_ids
from named
left join about using (feedback_id)
left join logged as chosen
    on named.client_id = chosen.client_id and named.chosen = chosen.response_id
left join logged as rejected
    on named.client_id = rejected.client_id and named.rejected = rejected.response_id
left join logged as renewed
    on named.client_id = renewed.client_id and named.renewed = renewed.response_id
order by named.feedback_id
