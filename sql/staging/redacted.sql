-- One row per interaction that no rule objected to, as all that follows may see it: personal data
-- and secrets are placeholders. Texts are null where redaction did not change what
-- staging.texts has, so that most are stored once. `request_key` names the redacted request,
-- so that requests which differ in nothing else are equal. So does `example_id`, but within a
-- client: of a request that several clients logged it is the key for the one that it was loaded
-- from first, and another for each of the others. Reads staging.interactions, and judgements, which
-- curate hands over, with null for what redaction did not change.

with

keyed as (
    select
        interactions.interaction_id,
        interactions.loaded_at,
        coalesce(interactions.party_id, interactions.client_id) as client_id,
        coalesce(judgements.request_key, interactions.example_id) as request_key
    from judgements
    inner join staging.interactions as interactions using (interaction_id)
    where judgements.objection is null
),

firsts as (
    select
        request_key,
        client_id,
        min(loaded_at) as loaded_at
    from keyed
    group by request_key, client_id
),

-- Not a window over all requests, most of which one client logs.
shared as (
    select request_key
    from firsts
    group by request_key
    having count(*) > 1
),

requested_often as (
    select
        request_key,
        client_id as first_client_id
    from firsts
    semi join shared using (request_key)
    qualify
        row_number() over (partition by request_key order by loaded_at asc, client_id asc) = 1
)

select
    keyed.interaction_id,
    keyed.client_id,
    judgements.messages,
    judgements.tools,
    judgements.answer,
    judgements.acceptable,
    keyed.request_key,
    case
        when requested_often.first_client_id != keyed.client_id
            then md5(keyed.request_key || chr(10) || keyed.client_id)
        else keyed.request_key
    end as example_id
from keyed
inner join judgements using (interaction_id)
left join requested_often on keyed.request_key = requested_often.request_key
