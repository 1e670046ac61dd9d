-- One row per conversation of a workload (an interaction of none is one by itself): its first
-- request, in order of time, the newest of before a time and all after it. Reads
-- raw.interactions.

with

requests as (
    select
        interaction_id,
        client_id,
        timestamp,
        json_extract(coalesce(record, payload), [
            '$.request.messages', '$.request.tools', '$.conversation_id', '$.trace_id'
        ]) as field
    from raw.interactions
    where workload_id = $workload_id and epoch(timestamp) > 0
),

firsts as (
    select
        interaction_id,
        client_id,
        timestamp,
        field[1]::json as messages,
        field[2]::json as tools
    from requests
    qualify row_number() over (
        partition by client_id, coalesce(field[3] ->> '$', field[4] ->> '$', interaction_id)
        order by timestamp asc, interaction_id asc
    ) = 1
),

told as (
    select
        interaction_id,
        client_id,
        timestamp,
        coalesce(
            list_filter(
                messages::json[], lambda one: one ->> '$.role' = 'user'
            )[-1] ->> '$.content',
            ''
        ) as question,
        array_to_string(
            list_sort(
                list_transform(
                    coalesce(try_cast(tools as json[]), []), lambda one: one ->> '$.function.name'
                )
            ),
            ' '
        ) as tool_names,
        timestamp > $since as is_new
    from firsts
),

numbered as (
    select
        interaction_id,
        client_id,
        timestamp,
        question,
        tool_names,
        is_new,
        row_number() over (
            partition by is_new order by timestamp desc, interaction_id desc
        ) as age
    from told
)

select
    interaction_id,
    client_id,
    question,
    tool_names,
    is_new
from numbered
where is_new or age <= $most
order by timestamp, interaction_id
