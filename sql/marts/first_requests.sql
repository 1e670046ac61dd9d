-- One row per conversation of a workload (an interaction of none is one by itself): its first
-- request, in order of time, the newest `$most` of before a time and those after it. Of these, all
-- of the first `$most_new`, about one in two of twice as many after them, one in four of four times
-- as many and so on, by the hash of the id: what a look compares grows with the logarithm of the
-- traffic, and what one look has chosen every later one chooses. Of a
-- long question the beginning. Reads raw.interactions.

with

requests as (
    select
        interaction_id,
        client_id,
        timestamp,
        json_extract_string(coalesce(record, payload), ['$.conversation_id', '$.trace_id']) as ids
    from raw.interactions
    where workload_id = $workload_id and epoch(timestamp) > 0
),

firsts as (
    select
        interaction_id,
        timestamp,
        timestamp > $since as is_new
    from requests
    qualify row_number() over (
        partition by client_id, coalesce(ids[1], ids[2], interaction_id)
        order by timestamp asc, interaction_id asc
    ) = 1
),

numbered as (
    select
        interaction_id,
        is_new,
        row_number() over (
            partition by is_new order by timestamp desc, interaction_id desc
        ) as age,
        row_number() over (
            partition by is_new order by timestamp asc, interaction_id asc
        ) - 1 as place
    from firsts
),

compared as (
    select
        interaction_id,
        is_new
    from numbered
    where
        (not is_new and age <= $most)
        or (
            is_new
            and md5_number_lower(interaction_id)
            % (1::ubigint << floor(log2(place / $most_new + 1))::int) = 0
        )
),

fields as (
    select
        interactions.interaction_id,
        interactions.client_id,
        interactions.timestamp,
        compared.is_new,
        json_extract(
            coalesce(interactions.record, interactions.payload),
            ['$.request.messages', '$.request.tools']
        ) as field
    from raw.interactions as interactions
    inner join compared using (interaction_id)
    where interactions.workload_id = $workload_id
)

select
    interaction_id,
    client_id,
    is_new,
    coalesce(
        left(
            list_filter(
                field[1]::json[], lambda one: one ->> '$.role' = 'user'
            )[-1] ->> '$.content',
            10000
        ),
        ''
    ) as question,
    array_to_string(
        list_sort(
            list_transform(
                coalesce(try_cast(field[2] as json[]), []), lambda one: one ->> '$.function.name'
            )
        ),
        ' '
    ) as tool_names
from fields
order by timestamp, interaction_id
