-- One row per record of a batch of feedback: what it holds, or the objection that sends it to
-- quarantine. Reads lines (ordinal, line, content, record), which collect hands over; `record` is
-- null where the line itself is canonical.

with

kinds as (
    select
        ordinal,
        line,
        try(json_type(coalesce(record, content), [
            '$', '$.timestamp', '$.workload_id', '$.client_id', '$.response_id',
            '$.conversation_id', '$.target_id', '$.actor_id', '$.kind', '$.value', '$.value.role',
            '$.value.content', '$.value.tool_calls', '$.value.chosen', '$.value.rejected',
            '$.value.tie', '$.value.name', '$.value.value', '$.scale[0]', '$.scale[1]',
            '$.scale[2]', '$.comment'
        ])) as kind_of,
        try(json_extract(coalesce(record, content), [
            '$.timestamp', '$.workload_id', '$.client_id', '$.response_id', '$.conversation_id',
            '$.target_id', '$.actor_id', '$.kind', '$.value', '$.value.role', '$.scale',
            '$.comment', '$.value.value'
        ])) as field,
        -- DuckDB reads such a comma, but JSON doesn't have it.
        regexp_matches(
            regexp_replace(coalesce(record, content), '"(?:[^"\\]|\\.)*"', '""', 'g'),
            ',[ \t\r\n]*[}\]]'
        ) as has_comma
    from lines
),

fields as (
    select
        ordinal,
        line,
        has_comma,
        -- Which DuckDB reads as well, outside of texts.
        regexp_matches(
            regexp_replace(field[9]::varchar, '"(?:[^"\\]|\\.)*"', '', 'g'), '(?i)nan|inf'
        ) as has_constant,
        kind_of[1] as line_kind,
        kind_of[2] as timestamp_kind,
        kind_of[10] as value_kind,
        kind_of[12] as content_kind,
        kind_of[13] as calls_kind,
        kind_of[14] as chosen_kind,
        kind_of[15] as rejected_kind,
        kind_of[16] as tie_kind,
        kind_of[17] as name_kind,
        kind_of[18] as outcome_kind,
        kind_of[22] as comment_kind,
        field[1] as timestamp_json,
        field[2] ->> '$' as workload_id,
        field[3] ->> '$' as client_id,
        field[4] ->> '$' as response_id,
        field[5] ->> '$' as conversation_id,
        field[6] ->> '$' as target_id,
        field[7] ->> '$' as actor_id,
        field[8] ->> '$' as kind,
        field[9] as value,
        field[10] ->> '$' as role,
        field[11] as scale,
        -- A feedback of before there were others than on responses keeps its id.
        concat_ws(
            chr(10),
            field[2], field[3], field[4],
            'conversation_id ' || field[5], 'target_id ' || field[6],
            field[7], field[8], field[9],
            'scale ' || field[11], 'comment ' || field[12]
        ) as canonical,
        len([one for one in kind_of[5:7] if one != 'NULL']) as targets,
        concat_ws(
            ', ',
            case when kind_of[2] is null then 'timestamp' end,
            case when kind_of[3] is null then 'workload_id' end,
            case when kind_of[4] is null then 'client_id' end,
            case when targets = 0 then 'response_id or conversation_id' end,
            case when kind_of[8] is null then 'actor_id' end,
            case when kind_of[9] is null then 'kind' end,
            case when kind_of[10] is null then 'value' end
        ) as missing,
        concat_ws(
            ', ',
            case when kind_of[3] != 'VARCHAR' then '`workload_id` is ' || kind_of[3] end,
            case when kind_of[4] != 'VARCHAR' then '`client_id` is ' || kind_of[4] end,
            case
                when kind_of[5] not in ('VARCHAR', 'NULL')
                    then '`response_id` is ' || kind_of[5]
            end,
            case
                when kind_of[6] not in ('VARCHAR', 'NULL')
                    then '`conversation_id` is ' || kind_of[6]
            end,
            case
                when kind_of[7] not in ('VARCHAR', 'NULL')
                    then '`target_id` is ' || kind_of[7]
            end,
            case when kind_of[8] != 'VARCHAR' then '`actor_id` is ' || kind_of[8] end,
            case when kind_of[9] != 'VARCHAR' then '`kind` is ' || kind_of[9] end,
            case
                when kind_of[22] not in ('VARCHAR', 'NULL') then '`comment` is ' || kind_of[22]
            end
        ) as not_text,
        kind_of[19] in ('BIGINT', 'UBIGINT', 'DOUBLE')
        and kind_of[20] in ('BIGINT', 'UBIGINT', 'DOUBLE')
        and kind_of[21] is null as is_scale,
        try_cast((field[11] ->> '$[0]') as double) as lowest,
        try_cast((field[11] ->> '$[1]') as double) as highest,
        field[13] as outcome,
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
            when has_comma then 'the line is not JSON: a comma stands before a closing bracket'
            when line_kind != 'OBJECT'
                then 'the line is a JSON ' || line_kind || ', expected an object'
            when missing != '' then 'missing keys: ' || missing
            when targets > 1
                then
                    'names more than one of response_id, conversation_id and target_id,'
                    || ' expected one'
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
            when not_text != '' then not_text || ', expected text'
            when
                kind not in (
                    'thumb', 'rating', 'choice', 'correction', 'regenerate', 'comment', 'outcome'
                )
                then
                    '`kind` is "' || left(kind, 80) || '",'
                    || ' expected thumb, rating, choice, correction,'
                    || ' regenerate, comment or outcome'
            -- It takes back what its actor said before.
            when
                kind in ('thumb', 'rating', 'correction', 'comment') and value_kind = 'NULL'
                then null
            when
                kind = 'thumb'
                and (value_kind != 'VARCHAR' or (value ->> '$') not in ('up', 'down'))
                then
                    '`value` of a thumb is ' || left(value::varchar, 80)
                    || ', expected "up" or "down"'
            when kind = 'rating' and value_kind not in ('BIGINT', 'UBIGINT', 'DOUBLE')
                then '`value` of a rating is ' || value_kind || ', expected a number'
            when kind = 'rating' and scale is null
                then '`scale` of a rating is missing, expected [lowest, highest]'
            when kind = 'rating' and is_scale and not isfinite(highest - lowest)
                then
                    '`scale` of a rating is ' || left(scale::varchar, 80)
                    || ', expected two finite numbers'
            when kind = 'rating' and (not coalesce(is_scale, false) or lowest >= highest)
                then
                    '`scale` of a rating is ' || left(scale::varchar, 80)
                    || ', expected [lowest, highest]'
            when
                kind = 'rating'
                and not coalesce(try_cast(value as double) between lowest and highest, false)
                then
                    '`value` of a rating is ' || left(value::varchar, 80)
                    || ', expected a number within its scale ' || left(scale::varchar, 80)
            when kind in ('choice', 'outcome') and value_kind != 'OBJECT'
                then
                    '`value` of ' || if(kind = 'choice', 'a choice', 'an outcome') || ' is '
                    || value_kind || ', expected an object'
            when
                kind = 'choice'
                and not (
                    coalesce(chosen_kind, 'NULL') = coalesce(rejected_kind, 'NULL')
                    and coalesce(chosen_kind, 'NULL') in ('OBJECT', 'VARCHAR')
                )
                then
                    '`value` of a choice has chosen ' || coalesce(chosen_kind, 'missing')
                    || ' and rejected ' || coalesce(rejected_kind, 'missing')
                    || ', expected two assistant messages or two response ids'
            when kind = 'choice' and coalesce(tie_kind, 'NULL') not in ('BOOLEAN', 'NULL')
                then '`value.tie` of a choice is ' || tie_kind || ', expected true or false'
            when kind = 'outcome' and coalesce(name_kind, 'NULL') != 'VARCHAR'
                then
                    '`value.name` of an outcome is ' || coalesce(name_kind, 'missing')
                    || ', expected text'
            when
                kind = 'outcome'
                and coalesce(outcome_kind, 'NULL')
                not in ('BOOLEAN', 'BIGINT', 'UBIGINT', 'DOUBLE', 'VARCHAR')
                then
                    '`value.value` of an outcome is ' || coalesce(outcome_kind, 'missing')
                    || ', expected true or false, a number or text'
            when
                kind = 'outcome' and outcome_kind in ('BIGINT', 'UBIGINT', 'DOUBLE')
                and not coalesce(isfinite(try_cast(outcome as double)), false)
                then
                    '`value.value` of an outcome is ' || left(outcome::varchar, 80)
                    || ', expected a finite number'
            when
                kind = 'regenerate'
                and value_kind != 'VARCHAR' and coalesce(value::varchar, '') != 'true'
                then
                    '`value` of a regenerate is ' || left(value::varchar, 80)
                    || ', expected true or the id of the new response'
            when kind = 'comment' and value_kind != 'VARCHAR'
                then '`value` of a comment is ' || value_kind || ', expected text'
            when kind = 'correction' and value_kind != 'OBJECT'
                then
                    '`value` of a correction is ' || value_kind || ', expected an assistant message'
            when kind = 'correction' and coalesce(role, '') != 'assistant'
                then
                    '`value.role` of a correction is ' || coalesce(left(role, 80), 'missing')
                    || ', expected assistant'
            when
                kind = 'correction'
                and coalesce(content_kind, 'NULL') not in ('VARCHAR', 'ARRAY')
                and coalesce(calls_kind, 'NULL') != 'ARRAY'
                then '`value` of a correction has neither content nor tool_calls'
            when has_constant
                then '`value` of a ' || kind || ' has NaN or Infinity, which is not JSON'
        end as objection
    from fields
)

select
    ordinal,
    line,
    objection,
    workload_id,
    client_id,
    response_id,
    conversation_id,
    target_id,
    actor_id,
    kind,
    case when objection is null then make_timestamptz((seconds * 1000000)::bigint) end as timestamp,
    case
        when objection is null then md5((seconds * 1000000)::bigint || chr(10) || canonical)
    end as feedback_id
from judged
order by ordinal
