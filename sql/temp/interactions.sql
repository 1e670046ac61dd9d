-- One row per record of a batch of interactions: what it holds, or the objection that sends it to
-- quarantine. Reads lines (ordinal, line, content, record), which collect hands over; `record` is
-- null where the line itself is canonical.

with

-- Every parse of a line costs as much as storing a third of it: the types are asked only of records
-- that don't look right at once. `try` costs nothing while all lines are JSON.
found as (
    select
        ordinal,
        line,
        coalesce(record, content) as written,
        try(json_extract(coalesce(record, content), [
            '$.timestamp', '$.workload_id', '$.client_id', '$.request', '$.response',
            '$.request.messages[0].role'
        ])) as field
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

looked_at as (
    select
        *,
        coalesce(
            (starts_with(field[1], '"') or left(field[1], 1) between '0' and '9')
            and seconds between 0 and $latest_seconds
            and starts_with(field[2], '"') and trim(workload_id) != ''
            and starts_with(field[3], '"')
            and starts_with(field[4], '{') and starts_with(field[5], '{')
            and field[6] is not null, -- so there is an array of messages
            false
        ) as is_plain
    from named
),

typed as (
    select
        *,
        case
            when not is_plain
                then try(json_type(written, [
                    '$', '$.timestamp', '$.workload_id', '$.client_id', '$.request', '$.response',
                    '$.request.messages'
                ]))
        end as kind
    from looked_at
),

fields as (
    select
        ordinal,
        line,
        is_plain,
        workload_id,
        client_id,
        seconds,
        kind[1] as line_kind,
        kind[2] as timestamp_kind,
        kind[3] as workload_kind,
        kind[4] as client_kind,
        kind[5] as request_kind,
        kind[6] as response_kind,
        kind[7] as messages_kind,
        field[1] as timestamp_json,
        concat_ws(chr(10), field[2], field[3], field[4], field[5]) as canonical
    from typed
),

judged as (
    select
        *,
        case
            when is_plain then null
            when line_kind is null then 'the line is not JSON'
            when line_kind != 'OBJECT'
                then 'the line is a JSON ' || line_kind || ', wants an object'
            when
                timestamp_kind is null or workload_kind is null or client_kind is null
                or request_kind is null or response_kind is null
                then 'missing keys: ' || concat_ws(
                    ', ',
                    case when timestamp_kind is null then 'timestamp' end,
                    case when workload_kind is null then 'workload_id' end,
                    case when client_kind is null then 'client_id' end,
                    case when request_kind is null then 'request' end,
                    case when response_kind is null then 'response' end
                )
            when timestamp_kind not in ('BIGINT', 'UBIGINT', 'DOUBLE', 'VARCHAR')
                then '`timestamp` is ' || timestamp_kind || ', wants unix seconds or ISO 8601 text'
            when seconds is null or isnan(seconds)
                then
                    '`timestamp` ' || left(timestamp_json::varchar, 80)
                    || ' is no time, wants unix seconds or ISO 8601 text'
            when seconds > $latest_seconds
                then
                    '`timestamp` ' || left(timestamp_json::varchar, 80)
                    || ' lies more than a day in the future; wants unix seconds, not milliseconds'
            when seconds < 0
                then '`timestamp` ' || left(timestamp_json::varchar, 80) || ' lies before 1970'
            when workload_kind != 'VARCHAR'
                then '`workload_id` is ' || workload_kind || ', wants text'
            when trim(workload_id) = '' then '`workload_id` is empty'
            when client_kind != 'VARCHAR' then '`client_id` is ' || client_kind || ', wants text'
            when request_kind != 'OBJECT'
                then '`request` is ' || request_kind || ', wants an object'
            when messages_kind is null then '`request.messages` is missing, wants an array'
            when messages_kind != 'ARRAY'
                then '`request.messages` is ' || messages_kind || ', wants an array'
            when response_kind != 'OBJECT'
                then '`response` is ' || response_kind || ', wants an object'
        end as objection
    from fields
)

select
    ordinal,
    line,
    objection,
    workload_id,
    client_id,
    case when objection is null then make_timestamptz((seconds * 1000000)::bigint) end as timestamp,
    case
        when objection is null then md5((seconds * 1000000)::bigint || chr(10) || canonical)
    end as interaction_id
from judged
order by ordinal
