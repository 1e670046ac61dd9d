-- One row per feedback that counts in the workload under curation, with the interactions that it is
-- about: those of the response, or all of the conversation or trace. It is ambiguous if it corrects
-- answers to several requests, or is on the id of a response that requests of several conversations
-- have (some engines draw ids from few numbers, Ollama from 999), or on an id of more than 1,000
-- rows, or of more than 20 and a third of all. Of the responses that a choice or a regenerate names
-- it gives one interaction each, null while that has not arrived; its messages stay in `value`.
-- Reads staging.feedback, staging.interactions and staging.texts.

with

targets as (
    select
        feedback_id,
        client_id,
        kind,
        unnest(['response', 'conversation', 'trace']) as aim,
        unnest([
            response_id,
            case when response_id is null then conversation_id end,
            case when response_id is null then trace_id end
        ]) as target_id
    from staging.feedback
),

logged_ids as (
    select
        interaction_id,
        client_id,
        unnest(['response', 'conversation', 'trace']) as aim,
        unnest([response_id, conversation_id, trace_id]) as target_id
    from staging.interactions
),

met as (
    select *
    from logged_ids
    semi join targets using (client_id, aim, target_id)
),

-- What an application calls all that it does, or too much to be meant with each of its answers; of
-- thousands of signals on thousands of rows not each pair is listed.
crowded as (
    select
        client_id,
        aim,
        target_id
    from met
    group by client_id, aim, target_id
    having
        count(*) > 1000
        or (count(*) > 20 and 3 * count(*) > (select count(*) from staging.interactions))
),

aimed as (
    select
        targets.feedback_id,
        targets.kind,
        met.interaction_id,
        targets.aim = 'response' as is_of_response
    from targets
    inner join met using (client_id, aim, target_id)
    anti join crowded using (client_id, aim, target_id)
),

about as (
    select
        feedback_id,
        list(interaction_id order by interaction_id) as interaction_ids
    from aimed
    group by feedback_id
),

-- Few: only their texts are read.
doubtful as (
    select feedback_id
    from aimed
    where is_of_response or kind = 'correction'
    group by feedback_id
    having count(*) > 1
),

-- A response may be logged by two sources, each with a form of the request of its own, so that only
-- what was asked last is compared.
asked as (
    select
        aimed.feedback_id,
        aimed.kind,
        coalesce(
            interactions.conversation_id, interactions.trace_id, interactions.interaction_id
        ) as talk_id,
        case
            when not aimed.is_of_response then interactions.example_id
            when json_type(texts.messages, '$[#-1].content') = 'ARRAY'
                then trim(array_to_string(
                    json_extract_string(texts.messages, '$[#-1].content[*].text'), chr(10)
                ))
            else trim(coalesce(texts.messages ->> '$[#-1].content', ''))
        end as request
    from aimed
    semi join doubtful on aimed.feedback_id = doubtful.feedback_id
    inner join staging.interactions as interactions using (interaction_id)
    inner join staging.texts as texts using (interaction_id)
),

ambiguous as (
    select feedback_id
    from asked
    group by feedback_id
    having
        count(distinct request) > 1
        and (bool_or(kind = 'correction') or count(distinct talk_id) > 1)
    union
    select feedback_id
    from targets
    semi join crowded using (client_id, aim, target_id)
),

named as (
    select
        feedback_id,
        client_id,
        actor_id,
        kind,
        given_at,
        stated_at,
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
    named.stated_at,
    named.value::varchar as value,
    named.scale::varchar as scale,
    named.is_waiting,
    chosen.interaction_id as chosen_id,
    rejected.interaction_id as rejected_id,
    renewed.interaction_id as renewed_id,
    ambiguous.feedback_id is not null as is_ambiguous,
    coalesce(about.interaction_ids, []) as interaction_ids
from named
left join about using (feedback_id)
left join ambiguous on named.feedback_id = ambiguous.feedback_id
left join logged as chosen
    on named.client_id = chosen.client_id and named.chosen = chosen.response_id
left join logged as rejected
    on named.client_id = rejected.client_id and named.rejected = rejected.response_id
left join logged as renewed
    on named.client_id = renewed.client_id and named.renewed = renewed.response_id
order by named.feedback_id
