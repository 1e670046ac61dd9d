-- One row per interaction of the workload under curation, taken apart into what was asked, what
-- was answered and what an evaluation may accept. Reads raw.interactions.

with

fields as (
    select
        interaction_id,
        workload_id,
        client_id,
        timestamp,
        json_extract(coalesce(record, payload), [
            '$.request.messages', '$.request.tools', '$.response.id',
            '$.response.choices[0].message', '$.response.choices[0].finish_reason',
            '$.metadata.acceptable', '$.conversation_id', '$.trace_id', '$.user_id'
        ]) as field
    from raw.interactions
    where workload_id = $workload_id
),

named as (
    select
        interaction_id,
        workload_id,
        client_id,
        timestamp as logged_at,
        field[1]::varchar as messages,
        case when (field[2] ->> '$') is null then '[]' else field[2]::varchar end as tools,
        field[3] ->> '$' as response_id,
        case when (field[4] ->> '$') is not null then field[4]::varchar end as message,
        field[5] ->> '$' as finish_reason,
        case when (field[6] ->> '$') is not null then field[6]::varchar end as acceptable,
        field[7] ->> '$' as conversation_id,
        field[8] ->> '$' as trace_id,
        field[9] ->> '$' as user_id
    from fields
)

select
    interaction_id,
    workload_id,
    client_id,
    logged_at,
    messages,
    tools,
    response_id,
    message,
    finish_reason,
    acceptable,
    conversation_id,
    trace_id,
    user_id,
    md5(workload_id || chr(10) || messages || chr(10) || tools) as example_id
from named
