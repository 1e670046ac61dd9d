-- One row per interaction of the subject, in raw or in the archive, and why it is the subject's: as
-- the user, as the conversation, because the user's conversation goes on without naming a user, or
-- (if `mentions`) because its text holds the id. Rows of many people have an id of $anonymous, so
-- it leads to no others: not from a user to a conversation, nor from a response to its feedback.
-- Reads raw.interactions, and archived_interactions, the files of retention, which erase hands
-- over.

with

held as (
    select
        interaction_id,
        timestamp,
        workload_id,
        client_id,
        file_digest,
        payload,
        record,
        false as is_archived
    from raw.interactions
    union all
    select
        interaction_id,
        timestamp,
        workload_id,
        client_id,
        file_digest,
        payload,
        record,
        true as is_archived
    from archived_interactions
),

said as (
    select
        interaction_id,
        timestamp,
        workload_id,
        client_id,
        file_digest,
        is_archived,
        json_extract_string(coalesce(record, payload), [
            '$.user_id', '$.user', '$.request.user', '$.request.safety_identifier',
            '$.request.metadata.user_id', '$.metadata.user_id'
        ]) as user_ids,
        json_extract_string(coalesce(record, payload), [
            '$.conversation_id', '$.trace_id', '$.session_id', '$.request.metadata.conversation_id',
            '$.request.metadata.session_id', '$.metadata.conversation_id'
        ]) as conversations,
        json_extract_string(coalesce(record, payload), '$.response.id') as response_id,
        regexp_matches(concat_ws(' ', payload, record), $pattern) as is_mentioned
    from held
    where
        ($workload_id::varchar is null or workload_id = $workload_id)
        and ($client_id::varchar is null or client_id = $client_id)
),

named as (
    select
        interaction_id,
        timestamp,
        workload_id,
        client_id,
        file_digest,
        is_archived,
        is_mentioned,
        case
            when not list_contains($anonymous::varchar[], lower(trim(response_id)))
                then response_id
        end as response_id,
        [
            one for one in user_ids
            if not list_contains($anonymous::varchar[], lower(trim(one)))
        ] as user_ids,
        [
            one for one in conversations
            if not list_contains($anonymous::varchar[], lower(trim(one)))
        ] as conversations,
        case
            when list_contains(user_ids, $subject) then 'user'
            when list_contains(conversations, $subject) then 'conversation'
        end as own
    from said
),

conversations_of_user as (
    select distinct
        client_id,
        unnest(conversations) as conversation_id
    from named
    where own = 'user'
),

unnamed as (
    select
        interaction_id,
        client_id,
        unnest(conversations) as conversation_id
    from named
    where own is null and len(user_ids) = 0
),

continued as (
    select distinct unnamed.interaction_id
    from unnamed
    semi join conversations_of_user using (client_id, conversation_id)
),

explained as (
    select
        named.*,
        case
            when named.own is not null then named.own
            when continued.interaction_id is not null then 'conversation of the user'
            when $mentions and named.is_mentioned then 'mention'
        end as reason
    from named
    left join continued using (interaction_id)
)

select
    interaction_id as id,
    timestamp,
    workload_id,
    client_id,
    file_digest,
    is_archived,
    response_id,
    conversations,
    reason,
    is_mentioned
from explained
where reason is not null or is_mentioned
