-- One row per interaction of the workload under curation, without its texts, which are in
-- staging.texts. `logged_at` is never after `loaded_at`, whatever the log says: what claims to be
-- of the future would outrank all others. `party_id` is the pattern of $together that the client's
-- id matches: clients of one party count as one; null for a client that is by itself. An id of
-- $anonymous names no conversation and no person: clients write it where they know none. Reads
-- raw.interactions, raw.files and staging.texts.

with

loads as (
    select
        digest as file_digest,
        min(loaded_at) as loaded_at
    from raw.files
    group by digest
),

patterns as (
    select unnest($together::varchar[]) as pattern
),

clients as (
    select distinct client_id from raw.interactions
    where workload_id = $workload_id
),

parties as (
    select
        clients.client_id,
        min(patterns.pattern) as party_id
    from clients
    inner join patterns on clients.client_id glob patterns.pattern
    group by clients.client_id
)

select
    interactions.interaction_id,
    interactions.workload_id,
    interactions.client_id,
    parties.party_id,
    loads.loaded_at,
    texts.response_id,
    texts.finish_reason,
    texts.trace_id,
    texts.example_id,
    case
        when not list_contains($anonymous::varchar[], lower(trim(texts.conversation_id)))
            then texts.conversation_id
    end as conversation_id,
    case
        when not list_contains($anonymous::varchar[], lower(trim(texts.user_id))) then texts.user_id
    end as user_id,
    least(interactions.timestamp, loads.loaded_at) as logged_at,
    interactions.timestamp > loads.loaded_at as is_ahead
from raw.interactions as interactions
inner join staging.texts as texts using (interaction_id)
left join loads on interactions.file_digest = loads.file_digest
left join parties on interactions.client_id = parties.client_id
where interactions.workload_id = $workload_id
