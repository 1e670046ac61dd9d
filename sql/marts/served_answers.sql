-- One row per answer that the gateway gave for a workload since a time, the newest first, at most
-- $most: request and response as logged, how it ended, how long it took, after how many seconds
-- somebody first disliked it, in this workload's name where the feedback has one, and whether the
-- version gave it that answers as $model_name. Reads raw.interactions and raw.feedback.

with

answers as (
    select
        client_id,
        epoch(timestamp) as answered_at,
        json_extract(coalesce(record, payload), [
            '$.request', '$.response', '$.conversation_id', '$.finish', '$.duration_ms',
            '$.response.id', '$.response.model'
        ]) as field
    from raw.interactions
    where
        workload_id = $workload_id and timestamp >= $since
        and json_extract_string(coalesce(record, payload), '$.served.arm') is not null
    order by timestamp desc
    limit $most
),

disliked as (
    select
        client_id,
        response_id,
        min(epoch(timestamp)) as disliked_at
    from raw.feedback
    where
        (workload_id = $workload_id or source != 'feedback')
        and (
            (
                kind in ('correction', 'regenerate')
                and json_extract_string(coalesce(record, payload), '$.value') is not null
            )
            or (
                kind = 'thumb'
                and json_extract_string(coalesce(record, payload), '$.value') = 'down'
            )
        )
    group by all
)

select
    answers.answered_at,
    answers.client_id,
    answers.field[3] ->> '$' as conversation_id,
    coalesce(answers.field[1]::varchar, '') as request,
    coalesce(answers.field[2]::varchar, '') as response,
    answers.field[4] ->> '$' as finish,
    try_cast(answers.field[5] ->> '$' as double) as milliseconds,
    disliked.disliked_at - answers.answered_at as disliked_after,
    coalesce(answers.field[7] ->> '$' = $model_name, false) as is_champion
from answers
left join disliked
    on
        answers.client_id = disliked.client_id
        and answers.field[6] ->> '$' = disliked.response_id
