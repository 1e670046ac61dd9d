-- One row per model and day of a workload since a time: how many requests it answered, the tokens
-- that its answers say they took, the thumbs on them, each person's newest word, how many answers
-- somebody corrected, and on how many people disagree; how many the gateway gave, as a fallback or
-- not, and its version of the model. The model is the one that the logged response names. Answers
-- that client or engine cut off before their end don't count, nor do feedback lines that name
-- another workload. Reads raw.interactions and raw.feedback.

with

answers as (
    select
        interaction_id,
        client_id,
        timestamp::date as day,
        json_extract(coalesce(record, payload), [
            '$.response.id', '$.response.model',
            '$.response.usage.prompt_tokens', '$.response.usage.completion_tokens',
            '$.response.choices[0].finish_reason', '$.served.arm', '$.served.version'
        ]) as field
    from raw.interactions
    where workload_id = $workload_id and timestamp >= $since
),

named as (
    select
        interaction_id,
        client_id,
        day,
        field[1] ->> '$' as response_id,
        coalesce(field[2] ->> '$', 'not named') as model_name,
        try_cast(field[3] ->> '$' as double) as input_tokens,
        try_cast(field[4] ->> '$' as double) as output_tokens,
        field[6] ->> '$' as arm,
        field[7] ->> '$' as version
    from answers
    where coalesce(field[5] ->> '$', '') not in ('client_gone', 'upstream_cut')
),

votes as (
    select
        feedback.client_id,
        feedback.response_id,
        json_extract_string(coalesce(feedback.record, feedback.payload), '$.value') as value
    from raw.feedback as feedback
    where
        feedback.kind = 'thumb'
        and (feedback.workload_id = $workload_id or feedback.source != 'feedback')
    qualify row_number() over (
        partition by feedback.client_id, feedback.response_id, feedback.actor_id
        order by feedback.timestamp desc, feedback.feedback_id asc
    ) = 1
),

counted as (
    select
        client_id,
        response_id,
        count(*) filter (where value = 'up') as up,
        count(*) filter (where value = 'down') as down
    from votes
    group by client_id, response_id
),

corrected as (
    select distinct
        client_id,
        response_id,
        true as is_corrected
    from raw.feedback
    where
        kind = 'correction'
        and (workload_id = $workload_id or source != 'feedback')
)

select
    named.model_name,
    named.day::varchar as day,
    count(*) as requests,
    count(*) filter (
        where named.input_tokens >= 0 and named.output_tokens >= 0
    ) as counted,
    coalesce(sum(named.input_tokens) filter (where named.input_tokens >= 0), 0) as input_tokens,
    coalesce(sum(named.output_tokens) filter (where named.output_tokens >= 0), 0) as output_tokens,
    coalesce(sum(counted.up), 0)::bigint as up,
    coalesce(sum(counted.down), 0)::bigint as down,
    count(*) filter (where corrected.is_corrected) as corrected,
    count(*) filter (where named.arm is not null) as served,
    count(*) filter (where named.arm = 'fallback') as fallbacks,
    count(*) filter (where counted.up > 0 and counted.down > 0) as disputed,
    max(named.version) as version
from named
left join counted using (client_id, response_id)
left join corrected using (client_id, response_id)
group by named.model_name, named.day
order by named.model_name, named.day
