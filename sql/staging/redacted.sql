-- One row per interaction that no rule objected to, as all that follows may see it: personal data
-- and secrets are placeholders. Texts are null where redaction did not change what
-- staging.texts has, so that most are stored once. `request_key` names the redacted request,
-- so that requests which differ in nothing else are equal. So does `example_id`, but within a
-- client: of a request that several clients logged it is the key for the one that it was loaded
-- from first, and another for each of the others. `owner_id` is the client's party, or the client.
-- Reads staging.interactions, staging.answers, and judgements, which curate hands over, with null
-- for what redaction did not change.

with

owned as (
    select
        *,
        coalesce(party_id, client_id) as owner_id
    from staging.interactions
),

owners as (
    select distinct owner_id from owned
),

-- None where one client logs, which is known before anything is joined.
shareable as materialized (
    select
        interaction_id,
        owner_id,
        loaded_at,
        example_id
    from owned
    where (select count(*) from owners) > 1
),

firsts as (
    select
        shareable.owner_id,
        coalesce(judgements.request_key, shareable.example_id) as request_key,
        min(shareable.loaded_at) as loaded_at
    from shareable
    inner join judgements using (interaction_id)
    where judgements.objection is null
    group by all
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
        owner_id as first_owner_id
    from firsts
    semi join shared using (request_key)
    qualify
        row_number() over (partition by request_key order by loaded_at asc, owner_id asc) = 1
),

keyed as (
    select
        owned.interaction_id,
        owned.owner_id,
        owned.client_id,
        owned.logged_at,
        judgements.messages,
        judgements.tools,
        judgements.answer,
        judgements.acceptable,
        coalesce(judgements.request_key, owned.example_id) as request_key
    from judgements
    inner join owned using (interaction_id)
    where judgements.objection is null
)

select
    keyed.*,
    case
        when requested_often.first_owner_id != keyed.owner_id
            then md5(keyed.request_key || chr(10) || keyed.owner_id)
        else keyed.request_key
    end as example_id
from keyed
left join requested_often using (request_key)
