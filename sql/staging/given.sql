-- One row per feedback in the workload under curation, the newest word of each actor and those that
-- it supersedes, or takes back (a null `value`). A feedback line belongs to the workload that it
-- names. Other sources know none: what they give belongs to the workload of its target; until that
-- arrives it waits in that of its defaults. `given_at` is never after it was loaded. Reads
-- raw.feedback, raw.files and staging.interactions.

with

loads as (
    select
        digest as file_digest,
        min(loaded_at) as loaded_at
    from raw.files
    group by digest
),

aimed as (
    select
        feedback_id,
        client_id,
        coalesce(response_id, conversation_id, target_id) as target_id,
        case
            when response_id is not null then 'response'
            when conversation_id is not null then 'conversation'
            else 'either'
        end as aim
    from raw.feedback
),

-- Most interactions have no feedback: they are left out before anything is made of their ids.
targets as (
    select distinct
        client_id,
        target_id
    from aimed
),

aims as (
    select
        interactions.client_id,
        unnest(['response', 'either']) as aim,
        interactions.response_id as target_id,
        interactions.response_id,
        null::varchar as conversation_id,
        null::varchar as trace_id
    from staging.interactions as interactions
    semi join targets
        on
            interactions.client_id = targets.client_id
            and interactions.response_id = targets.target_id
    union
    select
        interactions.client_id,
        unnest(['conversation', 'either']) as aim,
        interactions.conversation_id as target_id,
        null as response_id,
        interactions.conversation_id,
        null as trace_id
    from staging.interactions as interactions
    semi join targets
        on
            interactions.client_id = targets.client_id
            and interactions.conversation_id = targets.target_id
    union
    select
        interactions.client_id,
        'either' as aim,
        interactions.trace_id as target_id,
        null as response_id,
        null as conversation_id,
        interactions.trace_id
    from staging.interactions as interactions
    semi join targets
        on
            interactions.client_id = targets.client_id
            and interactions.trace_id = targets.target_id
),

arrived as (
    select
        aimed.feedback_id,
        aims.response_id,
        aims.conversation_id,
        aims.trace_id
    from aimed
    inner join aims using (client_id, aim, target_id)
    -- An id that is a response's and a conversation's means the response. A trace is one turn of a
    -- conversation, whose other answers its feedback is not about.
    qualify row_number() over (
        partition by aimed.feedback_id
        order by aims.response_id asc nulls last, aims.conversation_id asc nulls last
    ) = 1
)

select
    feedback.feedback_id,
    feedback.client_id,
    feedback.target_id,
    feedback.actor_id,
    feedback.kind,
    arrived.trace_id,
    loads.loaded_at,
    feedback.line,
    feedback.timestamp as stated_at,
    $workload_id::varchar as workload_id,
    least(feedback.timestamp, loads.loaded_at) as given_at,
    coalesce(arrived.response_id, feedback.response_id) as response_id,
    coalesce(arrived.conversation_id, feedback.conversation_id) as conversation_id,
    arrived.feedback_id is null as is_waiting,
    json_extract(coalesce(feedback.record, feedback.payload), '$.value') as value,
    json_extract(coalesce(feedback.record, feedback.payload), '$.scale') as scale,
    json_extract_string(coalesce(feedback.record, feedback.payload), '$.comment') as remark
from raw.feedback as feedback
left join arrived using (feedback_id)
left join loads using (file_digest)
where
    feedback.workload_id = $workload_id
    or (arrived.feedback_id is not null and feedback.source != 'feedback')
