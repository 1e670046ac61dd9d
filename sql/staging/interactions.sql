-- One row per interaction of the workload under curation, taken apart into what was asked, what
-- was answered and what an evaluation may accept. `logged_at` is never after `loaded_at`, whatever
-- the log says: what claims to be of the future would outrank all others. `party_id` is the pattern
-- of $together that the client's id matches: clients of one party count as one; null for a client
-- that is by itself. Reads raw.interactions and raw.files.

with

loads as (
    select
        digest as file_digest,
        min(loaded_at) as loaded_at
    from raw.files
    group by digest
),

patterns as (
    select unnest($together::varchar[]) as pattern
),

clients as (
    select distinct client_id from raw.interactions
    where workload_id = $workload_id
),

parties as (
    select
        clients.client_id,
        min(patterns.pattern) as party_id
    from clients
    inner join patterns on clients.client_id glob patterns.pattern
    group by clients.client_id
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
        parties.party_id,
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
    left join parties using (client_id)
)

select
    interaction_id,
    workload_id,
    client_id,
    party_id,
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
