-- One row per conversation of a workload (an interaction of none is one by itself): its first
-- request, in order of time, the newest `$most` of before a time and those after it. Of these, all
-- of the first `$most_new`, about one in two of twice as many after them, one in four of four times
-- as many and so on, by the hash of the id: what a look compares grows with the logarithm of the
-- traffic, and what one look has chosen every later one chooses. An id of $anonymous names no
-- conversation, nor does one on more than a third of the rows (and on more than 20), which is an
-- application's. Of a long question the beginning. Reads raw.interactions.

with

logged as (
    select
        interaction_id,
        client_id,
        timestamp,
        json_extract_string(coalesce(record, payload), ['$.conversation_id', '$.trace_id']) as ids
    from raw.interactions
    where workload_id = $workload_id and epoch(timestamp) > 0
),

requests as (
    select
        interaction_id,
        client_id,
        timestamp,
        coalesce(
            case when not list_contains($anonymous::varchar[], lower(trim(ids[1]))) then ids[1] end,
            ids[2]
        ) as talk_id
    from logged
),

common as (
    select
        client_id,
        talk_id
    from requests
    where talk_id is not null
    group by client_id, talk_id
    having count(*) > 20 and 3 * count(*) > (select count(*) from logged)
),

firsts as (
    select
        requests.interaction_id,
        requests.timestamp,
        requests.timestamp > $since as is_new
    from requests
    left join common using (client_id, talk_id)
    qualify row_number() over (
        partition by
            requests.client_id,
            case
                when common.talk_id is null then coalesce(requests.talk_id, requests.interaction_id)
                else requests.interaction_id
            end
        order by requests.timestamp asc, requests.interaction_id asc
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
