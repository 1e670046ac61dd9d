-- One row per record of a batch of interactions: what it holds, and whether it is plain, that is
-- what it should be at first sight; of the others temp/refused_interactions tells. Reads lines
-- (ordinal, line, content, record), which collect hands over; `record` is null where the line
-- itself is canonical.

with

-- Every parse of a line costs as much as storing a third of it. `try` costs nothing while all lines
-- are JSON.
found as (
    select
        ordinal,
        line,
        record,
        content,
        try(json_extract(coalesce(record, content), [
            '$.timestamp', '$.workload_id', '$.client_id', '$.request', '$.response',
            '$.request.messages[0].role', '$.request.messages[#-1].content',
            '$.response.choices[0].message.content'
        ])) as field,
        hash(coalesce(record, content)) as content_hash
    from lines
),

named as (
    select
        *,
        field[2] ->> '$' as workload_id,
        field[3] ->> '$' as client_id,
        case
            when starts_with(field[1], '"')
                then try(epoch(try_cast(field[1] ->> '$' as timestamptz)))
            else try_cast(field[1] as double)
        end as seconds
    from found
),

timed as (
    select
        *,
        case
            when seconds between 0 and $latest_seconds then (seconds * 1000000)::bigint
        end as microseconds
    from named
)

select
    ordinal,
    line,
    workload_id,
    client_id,
    seconds,
    content_hash,
    make_timestamptz(microseconds) as timestamp,
    md5(
        concat_ws(chr(10), microseconds, field[2], field[3], field[4], field[5])
    ) as interaction_id,
    -- Of texts alone, which neither the order of keys nor the form of numbers changes; of their
    -- beginnings, since rows that are alike are compared as a whole anyway.
    md5_number_lower(concat_ws(
        chr(10),
        field[2], field[3],
        case when starts_with(field[7], '"') then strlen(field[7]) || left(field[7], 80) end,
        case when starts_with(field[8], '"') then strlen(field[8]) || left(field[8], 80) end
    )) as likeness,
    coalesce(
        microseconds is not null
        and (starts_with(field[1], '"') or left(field[1], 1) between '0' and '9')
        and starts_with(field[2], '"') and trim(workload_id) != ''
        and starts_with(field[3], '"')
        and starts_with(field[4], '{') and starts_with(field[5], '{')
        and field[6] is not null -- so there is an array of messages
        -- A comma before a closing bracket, which DuckDB reads but JSON doesn't have; or in a text.
        and not regexp_matches(coalesce(record, content), ',[ \t\r\n]*[}\]]'),
        false
    ) as is_plain
from timed
order by ordinal
