-- One row per record of a batch of interactions: the objection that sends it to quarantine, null
-- where it is plain or sound all the same. Reads odd_lines (ordinal, written), the records that are
-- not plain, and found, what temp/interactions says of all, which collect hands over.

with

odd as (
    select
        found.ordinal,
        found.workload_id,
        found.seconds,
        odd_lines.written
    from odd_lines
    inner join found using (ordinal)
),

typed as (
    select
        *,
        try(json_type(written, [
            '$', '$.timestamp', '$.workload_id', '$.client_id', '$.request', '$.response',
            '$.request.messages'
        ])) as kind
    from odd
),

fields as (
    select
        ordinal,
        workload_id,
        seconds,
        regexp_matches(
            regexp_replace(written, '"(?:[^"\\]|\\.)*"', '""', 'g'), ',[ \t\r\n]*[}\]]'
        ) as has_comma,
        kind[1] as line_kind,
        kind[2] as timestamp_kind,
        kind[3] as workload_kind,
        kind[4] as client_kind,
        kind[5] as request_kind,
        kind[6] as response_kind,
        kind[7] as messages_kind,
        try(json_extract(written, '$.timestamp')) as timestamp_json
    from typed
),

judged as (
    select
        ordinal,
        case
            when line_kind is null then 'the line is not JSON'
            when has_comma then 'the line is not JSON: a comma stands before a closing bracket'
            when line_kind != 'OBJECT'
                then 'the line is a JSON ' || line_kind || ', expected an object'
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
                then
                    '`timestamp` is ' || timestamp_kind
                    || ', expected unix seconds or ISO 8601 text'
            when seconds is null or isnan(seconds)
                then
                    '`timestamp` ' || left(timestamp_json::varchar, 80)
                    || ' is not a time, expected unix seconds or ISO 8601 text'
            when seconds > $latest_seconds
                then
                    '`timestamp` ' || left(timestamp_json::varchar, 80)
                    || ' lies more than a day in the future;'
                    || ' expected unix seconds, not milliseconds'
            when seconds < 0
                then '`timestamp` ' || left(timestamp_json::varchar, 80) || ' lies before 1970'
            when workload_kind != 'VARCHAR'
                then '`workload_id` is ' || workload_kind || ', expected text'
            when trim(workload_id) = '' then '`workload_id` is empty'
            when client_kind != 'VARCHAR' then '`client_id` is ' || client_kind || ', expected text'
            when request_kind != 'OBJECT'
                then '`request` is ' || request_kind || ', expected an object'
            when messages_kind is null then '`request.messages` is missing, expected an array'
            when messages_kind != 'ARRAY'
                then '`request.messages` is ' || messages_kind || ', expected an array'
            when response_kind != 'OBJECT'
                then '`response` is ' || response_kind || ', expected an object'
        end as objection
    from fields
)

select
    found.ordinal,
    judged.objection
from found
left join judged using (ordinal)
order by found.ordinal
