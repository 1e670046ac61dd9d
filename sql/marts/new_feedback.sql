-- One row: how many words of people on a workload were loaded after a time. As in curation a person
-- has one word of a kind on a target (and name of an outcome, and pair of a choice): a client that
-- sends a comment again, since no answer to the first came back, and a changed mind add none. A
-- word's own time may be long before. Reads raw.feedback and raw.files.

with

loaded as (
    select
        digest as file_digest,
        min(loaded_at) as loaded_at
    from raw.files
    group by digest
),

recent as (
    select
        feedback.client_id,
        feedback.response_id,
        feedback.conversation_id,
        feedback.target_id,
        feedback.actor_id,
        feedback.kind,
        json_extract(coalesce(feedback.record, feedback.payload), '$.value') as value
    from raw.feedback as feedback
    inner join loaded using (file_digest)
    where feedback.workload_id = $workload_id and loaded.loaded_at > $since
),

words as (
    select distinct
        client_id,
        response_id,
        conversation_id,
        target_id,
        actor_id,
        kind,
        case kind
            when 'outcome' then value ->> '$.name'
            when 'choice' then list_sort([value ->> '$.chosen', value ->> '$.rejected'])::varchar
        end as subject
    from recent
)

select count(*) as signals
from words
