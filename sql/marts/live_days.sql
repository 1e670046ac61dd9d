-- One row per model and day of a workload since a time: how many requests it answered, the tokens
-- that its answers say they took, the thumbs on them, each person's newest word, how many answers
-- somebody corrected, and on how many people disagree; how many the gateway gave, as a fallback or
-- not, and its version of the model. The model is the one that the logged response names. Answers
-- that client or engine cut off before their end don't count, nor do feedback lines that name
-- another workload. Feedback on an answer that was logged twice counts once, and on a trace for its
-- answer, if it has one. Reads raw.interactions and raw.feedback.

with

answers as (
    select
        interaction_id,
        client_id,
        timestamp,
        json_extract(coalesce(record, payload), [
            '$.response.id', '$.response.model',
            '$.response.usage.prompt_tokens', '$.response.usage.completion_tokens',
            '$.response.choices[0].finish_reason', '$.served.arm', '$.served.version', '$.trace_id',
            '$.response.usage.prompt_tokens_details.cached_tokens',
            '$.response.usage.prompt_tokens_details.cache_creation_tokens',
            '$.response.usage.cache_creation_input_tokens', '$.usage.prompt_tokens',
            '$.usage.prompt_tokens_details.cached_tokens',
            '$.usage.prompt_tokens_details.cache_creation_tokens', '$.usage.completion_tokens'
        ]) as field
    from raw.interactions
    where workload_id = $workload_id and timestamp >= $since
),

named as (
    select
        interaction_id,
        client_id,
        timestamp,
        field[1] ->> '$' as response_id,
        coalesce(field[2] ->> '$', 'not named') as model_name,
        -- What a record says beside its response counts before what the response says.
        coalesce(try_cast(field[12] ->> '$' as double), try_cast(field[3] ->> '$' as double))
            as input_tokens,
        coalesce(try_cast(field[15] ->> '$' as double), try_cast(field[4] ->> '$' as double))
            as output_tokens,
        coalesce(try_cast(field[13] ->> '$' as double), try_cast(field[9] ->> '$' as double))
            as cached,
        if(cached between 0 and input_tokens, cached, 0) as cached_tokens,
        coalesce(
            try_cast(field[14] ->> '$' as double),
            try_cast(field[10] ->> '$' as double),
            try_cast(field[11] ->> '$' as double)
        ) as written,
        if(written between 0 and input_tokens - cached_tokens, written, 0) as written_tokens,
        -- Zeros stand where nothing was counted; to DuckDB, NaN is above every number.
        coalesce(input_tokens between 1 and 1e9 and output_tokens between 0 and 1e9, false)
            as tells_tokens,
        field[6] ->> '$' as arm,
        field[7] ->> '$' as version,
        field[8] ->> '$' as trace_id
    from answers
    where coalesce(field[5] ->> '$', '') not in ('client_gone', 'upstream_cut')
),

aimed as (
    select
        feedback_id,
        client_id,
        actor_id,
        kind,
        timestamp,
        coalesce(response_id, target_id) as target_id,
        response_id is null as may_be_trace,
        json_extract_string(coalesce(record, payload), '$.value') as value
    from raw.feedback
    where
        kind in ('thumb', 'correction')
        and (workload_id = $workload_id or source != 'feedback')
        and (response_id is not null or target_id is not null)
),

targets as (
    select distinct
        client_id,
        target_id,
        may_be_trace
    from aimed
),

ids as (
    select
        interaction_id,
        client_id,
        timestamp,
        response_id,
        unnest(['response', 'trace']) as aim,
        unnest([response_id, trace_id]) as target_id
    from named
),

-- An id that is a response's and a trace's means the response.
hits as (
    select
        targets.client_id,
        targets.target_id,
        targets.may_be_trace,
        arg_max(ids.interaction_id, ids.timestamp) as interaction_id
    from targets
    inner join ids using (client_id, target_id)
    where ids.aim = 'response' or targets.may_be_trace
    group by targets.client_id, targets.target_id, targets.may_be_trace, ids.aim
    having ids.aim = 'response' or count(distinct ids.response_id) = 1
    qualify row_number() over (
        partition by targets.client_id, targets.target_id, targets.may_be_trace
        order by ids.aim asc
    ) = 1
),

votes as (
    select
        hits.interaction_id,
        aimed.kind,
        aimed.value
    from aimed
    inner join hits using (client_id, target_id, may_be_trace)
    qualify row_number() over (
        partition by hits.interaction_id, aimed.actor_id, aimed.kind
        order by aimed.timestamp desc, aimed.feedback_id asc
    ) = 1
),

counted as (
    select
        interaction_id,
        count(*) filter (where kind = 'thumb' and value = 'up') as up,
        count(*) filter (where kind = 'thumb' and value = 'down') as down,
        coalesce(bool_or(kind = 'correction' and value is not null), false) as is_corrected
    from votes
    group by interaction_id
)

select
    named.model_name,
    named.timestamp::date::varchar as day,
    count(*) as requests,
    count(*) filter (where named.tells_tokens) as counted,
    coalesce(sum(named.input_tokens) filter (where named.tells_tokens), 0) as input_tokens,
    coalesce(sum(named.output_tokens) filter (where named.tells_tokens), 0) as output_tokens,
    coalesce(sum(named.cached_tokens) filter (where named.tells_tokens), 0) as cached_tokens,
    coalesce(sum(named.written_tokens) filter (where named.tells_tokens), 0) as written_tokens,
    coalesce(sum(counted.up), 0)::bigint as up,
    coalesce(sum(counted.down), 0)::bigint as down,
    count(*) filter (where counted.is_corrected) as corrected,
    count(*) filter (where named.arm is not null) as served,
    count(*) filter (where named.arm = 'fallback') as fallbacks,
    count(*) filter (where counted.up > 0 and counted.down > 0) as disputed,
    max(named.version) as version
from named
left join counted using (interaction_id)
group by named.model_name, named.timestamp::date
order by named.model_name, named.timestamp::date
