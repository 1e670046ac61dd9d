-- One row per feedback by or about the subject, in raw or in the archive, and why it is erased: the
-- subject gave it, it is about an erased interaction or its conversation, it compares with an
-- erased answer, or (if `mentions`) its text holds the id. Reads raw.feedback,
-- temp.erased_interactions, and archived_feedback, the files of retention, which erase hands over.

with

held as (
    select
        feedback_id,
        timestamp,
        workload_id,
        client_id,
        actor_id,
        file_digest,
        payload,
        record,
        coalesce(response_id, conversation_id, target_id) as target_id,
        false as is_archived
    from raw.feedback
    union all
    select
        feedback_id,
        timestamp,
        workload_id,
        client_id,
        actor_id,
        file_digest,
        payload,
        record,
        coalesce(response_id, conversation_id, target_id) as target_id,
        true as is_archived
    from archived_feedback
),

answers as (
    select distinct
        client_id,
        response_id as target_id
    from temp.erased_interactions
    where reason is not null and response_id is not null
),

targets as (
    select
        client_id,
        target_id
    from answers
    union
    select
        client_id,
        unnest(conversations) as target_id
    from temp.erased_interactions
    where reason is not null
),

said as (
    select
        *,
        json_extract_string(coalesce(record, payload), ['$.user_id', '$.user']) as user_ids,
        json_extract_string(
            coalesce(record, payload), ['$.value', '$.value.chosen', '$.value.rejected']
        ) as answers,
        regexp_matches(concat_ws(' ', payload, record), $pattern) as is_mentioned,
        ($workload_id::varchar is null or workload_id = $workload_id)
        and ($client_id::varchar is null or client_id = $client_id) as is_within
    from held
),

compared as (
    select distinct named.feedback_id
    from (
        select
            feedback_id,
            client_id,
            unnest(answers) as target_id
        from said
    ) as named
    semi join answers using (client_id, target_id)
),

explained as (
    select
        said.*,
        case
            when said.is_within and said.actor_id = $subject then 'actor'
            when said.is_within and list_contains(said.user_ids, $subject) then 'user'
            when targets.target_id is not null then 'about an erased interaction'
            when said.is_within and said.target_id = $subject then 'about the conversation'
            when compared.feedback_id is not null then 'compares with an erased answer'
            when $mentions and said.is_within and said.is_mentioned then 'mention'
        end as reason
    from said
    left join targets using (client_id, target_id)
    left join compared using (feedback_id)
)

select
    feedback_id as id,
    timestamp,
    workload_id,
    client_id,
    file_digest,
    is_archived,
    reason,
    is_mentioned and is_within as is_mentioned
from explained
where reason is not null or (is_mentioned and is_within)
