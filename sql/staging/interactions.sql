-- One row per interaction of the workload under curation, taken apart into what was asked, what
-- was answered and what an evaluation may accept. `logged_at` is never after `loaded_at`, whatever
-- the log says: what claims to be of the future would outrank all others. Reads raw.interactions
-- and raw.files.

with

loads as (
    select
        digest as file_digest,
        min(loaded_at) as loaded_at
    from raw.files
    group by digest
),

fields as (
    select
        interaction_id,
        workload_id,
        client_id,
        timestamp,
        loads.loaded_at,
        json_extract(coalesce(record, payload), [
            '$.request.messages', '$.request.tools', '$.response.id',
            '$.response.choices[0].message', '$.response.choices[0].finish_reason',
            '$.metadata.acceptable', '$.conversation_id', '$.trace_id', '$.user_id'
        ]) as field
    from raw.interactions
    left join loads using (file_digest)
    where workload_id = $workload_id
),

named as (
    select
        interaction_id,
        workload_id,
        client_id,
        loaded_at,
        field[1]::varchar as messages,
        case when (field[2] ->> '$') is null then '[]' else field[2]::varchar end as tools,
        field[3] ->> '$' as response_id,
        case when (field[4] ->> '$') is not null then field[4]::varchar end as message,
        field[5] ->> '$' as finish_reason,
        case when (field[6] ->> '$') is not null then field[6]::varchar end as acceptable,
        field[7] ->> '$' as conversation_id,
        field[8] ->> '$' as trace_id,
        field[9] ->> '$' as user_id,
        least(timestamp, loaded_at) as logged_at,
        timestamp > loaded_at as is_ahead
    from fields
)

select
    interaction_id,
    workload_id,
    client_id,
    logged_at,
    loaded_at,
    is_ahead,
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
