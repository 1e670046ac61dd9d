-- One row per actor and answer of a workload that got a thumb: the newest, in order of the answers'
-- times, the newest of before a time and all after it. Reads raw.feedback and raw.interactions.

with

answers as (
    select
        client_id,
        json_extract_string(coalesce(record, payload), '$.response.id') as response_id,
        min(timestamp) as answered_at
    from raw.interactions
    where workload_id = $workload_id
    group by all
),

votes as (
    select
        feedback.feedback_id,
        answers.answered_at,
        json_extract_string(
            coalesce(feedback.record, feedback.payload), '$.value'
        ) = 'down' as is_down,
        answers.answered_at >= $since as is_new
    from raw.feedback as feedback
    inner join answers using (client_id, response_id)
    where feedback.kind = 'thumb'
    qualify row_number() over (
        partition by client_id, response_id, feedback.actor_id
        order by feedback.timestamp desc, feedback.feedback_id asc
    ) = 1
),

numbered as (
    select
        feedback_id,
        answered_at,
        is_down,
        is_new,
        row_number() over (
            partition by is_new order by answered_at desc, feedback_id desc
        ) as age
    from votes
)

select
    feedback_id,
    is_down,
    is_new
from numbered
where is_new or age <= $most
order by answered_at, feedback_id
