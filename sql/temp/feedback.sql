-- One row per line of a feedback file: what it holds, or the objection that sends it to
-- quarantine. Reads lines (line, content), which collect hands over.

with

kinds as (
    select
        line,
        content,
        case when json_valid(content) then json_type(content, [
            '$', '$.timestamp', '$.workload_id', '$.client_id', '$.response_id', '$.actor_id',
            '$.kind', '$.value', '$.value.role', '$.value.content', '$.value.tool_calls'
        ]) end as kind_of,
        case when json_valid(content) then json_extract(content, [
            '$.timestamp', '$.workload_id', '$.client_id', '$.response_id', '$.actor_id',
            '$.kind', '$.value', '$.value.role'
        ]) end as field
    from lines
),

fields as (
    select
        line,
        content,
        kind_of[1] as line_kind,
        kind_of[2] as timestamp_kind,
        kind_of[8] as value_kind,
        kind_of[10] as content_kind,
        kind_of[11] as calls_kind,
        field[1] as timestamp_json,
        field[2] ->> '$' as workload_id,
        field[3] ->> '$' as client_id,
        field[4] ->> '$' as response_id,
        field[5] ->> '$' as actor_id,
        field[6] ->> '$' as kind,
        field[7] as value,
        field[8] ->> '$' as role,
        concat_ws(
            chr(10), field[2], field[3], field[4], field[5], field[6], field[7]
        ) as canonical,
        concat_ws(
            ', ',
            case when kind_of[2] is null then 'timestamp' end,
            case when kind_of[3] is null then 'workload_id' end,
            case when kind_of[4] is null then 'client_id' end,
            case when kind_of[5] is null then 'response_id' end,
            case when kind_of[6] is null then 'actor_id' end,
            case when kind_of[7] is null then 'kind' end,
            case when kind_of[8] is null then 'value' end
        ) as missing,
        concat_ws(
            ', ',
            case when kind_of[3] != 'VARCHAR' then '`workload_id` is ' || kind_of[3] end,
            case when kind_of[4] != 'VARCHAR' then '`client_id` is ' || kind_of[4] end,
            case when kind_of[5] != 'VARCHAR' then '`response_id` is ' || kind_of[5] end,
            case when kind_of[6] != 'VARCHAR' then '`actor_id` is ' || kind_of[6] end,
            case when kind_of[7] != 'VARCHAR' then '`kind` is ' || kind_of[7] end
        ) as not_text,
        case
            when kind_of[2] in ('BIGINT', 'UBIGINT', 'DOUBLE') then try_cast(field[1] as double)
            when kind_of[2] = 'VARCHAR' then try(epoch(try_cast(field[1] ->> '$' as timestamptz)))
        end as seconds
    from kinds
),

judged as (
    select
        *,
        case
            when line_kind is null then 'the line is not JSON'
            when line_kind != 'OBJECT'
                then 'the line is a JSON ' || line_kind || ', wants an object'
            when missing != '' then 'missing keys: ' || missing
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
            when not_text != '' then not_text || ', wants text'
            when kind not in ('thumb', 'correction')
                then '`kind` is "' || left(kind, 80) || '", wants thumb or correction'
            when
                kind = 'thumb'
                and (value_kind != 'VARCHAR' or (value ->> '$') not in ('up', 'down'))
                then
                    '`value` of a thumb is ' || left(value::varchar, 80) || ', wants "up" or "down"'
            when kind = 'correction' and value_kind != 'OBJECT'
                then '`value` of a correction is ' || value_kind || ', wants an assistant message'
            when kind = 'correction' and coalesce(role, '') != 'assistant'
                then
                    '`value.role` of a correction is ' || coalesce(left(role, 80), 'missing')
                    || ', wants assistant'
            when
                kind = 'correction'
                and coalesce(content_kind, 'NULL') not in ('VARCHAR', 'ARRAY')
                and coalesce(calls_kind, 'NULL') != 'ARRAY'
                then '`value` of a correction has neither content nor tool_calls'
        end as objection
    from fields
)

select
    line,
    content,
    objection,
    workload_id,
    client_id,
    response_id,
    actor_id,
    kind,
    case when objection is null then make_timestamptz((seconds * 1000000)::bigint) end as timestamp,
    case
        when objection is null then md5((seconds * 1000000)::bigint || chr(10) || canonical)
    end as feedback_id
from judged
