-- One row per interaction of the workload under curation that no earlier curation has parsed: what
-- was asked, what was answered, what an evaluation may accept, the ids in it, and digests of the
-- texts. Of a request for several answers (`n`) nobody knows which one was shown: where they differ
-- the finish reason is `several_answers`. It depends on nothing but the row of raw, which its first
-- five columns identify. Reads raw.interactions, and matched, which curate hands over, one row per
-- interaction.

with

unparsed as (
    select interaction_id
    from matched
    where not is_kept
),

fields as (
    select
        interaction_id,
        file_digest,
        line,
        content_hash,
        workload_id,
        md5(record) as record_digest,
        coalesce(record, payload) as line_text,
        json_extract(coalesce(record, payload), [
            '$.request.messages', '$.request.tools', '$.response.id',
            '$.response.choices[0].message', '$.response.choices[0].finish_reason',
            '$.metadata.acceptable', '$.conversation_id', '$.trace_id', '$.user_id', '$.finish',
            '$.response.object', '$.request.tool_choice',
            '$.request.response_format.json_schema.schema', '$.response.choices[1]'
        ]) as field
    from raw.interactions
    semi join unparsed using (interaction_id)
    where workload_id = $workload_id
),

named as (
    select
        * exclude (field, line_text),
        field[1]::varchar as messages,
        -- Who may not call has no tools: his text does not say that none of them fits.
        case
            when
                (field[2] ->> '$') is null
                or coalesce(field[12] ->> '$.type', field[12] ->> '$') = 'none'
                then '[]'
            else field[2]::varchar
        end as tools,
        field[3] ->> '$' as response_id,
        case when (field[4] ->> '$') is not null then field[4]::varchar end as message,
        case
            when (field[10] ->> '$') in ('client_gone', 'upstream_cut') then field[10] ->> '$'
            when
                json_type(field[14]) = 'OBJECT'
                and len(list_distinct(list_transform(
                    json_extract(line_text, '$.response.choices[*].message'),
                    lambda answer: {
                        'content': trim(coalesce(answer ->> '$.content', '')),
                        'calls': json_extract(answer, '$.tool_calls[*].function')
                    }
                ))) > 1
                then 'several_answers'
            -- OpenAI's completions have a reason, only the chunks before the last of a stream null.
            when json_type(field[5]) = 'NULL' and (field[11] ->> '$') = 'chat.completion'
                then 'upstream_cut'
            -- Other providers' names: OpenTelemetry, vLLM, Anthropic, Bedrock, Gemini, Mistral.
            when lower(field[5] ->> '$') in ('error', 'abort', 'cancelled', 'pause_turn')
                then 'upstream_cut'
            when
                lower(field[5] ->> '$') in (
                    'max_tokens', 'model_context_window_exceeded', 'model_length'
                )
                then 'length'
            when
                lower(field[5] ->> '$') in (
                    'refusal', 'content_filtered', 'guardrail_intervened', 'safety', 'recitation',
                    'blocklist', 'prohibited_content', 'spii'
                )
                then 'content_filter'
            else field[5] ->> '$'
        end as finish_reason,
        case when (field[6] ->> '$') is not null then field[6]::varchar end as acceptable,
        field[7] ->> '$' as conversation_id,
        field[8] ->> '$' as trace_id,
        field[9] ->> '$' as user_id,
        case when json_type(field[13]) = 'OBJECT' then field[13]::varchar end as response_schema
    from fields
)

select
    interaction_id,
    file_digest,
    line,
    content_hash,
    record_digest,
    messages,
    tools,
    message,
    acceptable,
    response_id,
    finish_reason,
    conversation_id,
    trace_id,
    user_id,
    response_schema,
    md5(messages) as messages_digest,
    md5(tools) as tools_digest,
    md5(message) as message_digest,
    md5(acceptable) as acceptable_digest,
    md5(workload_id || chr(10) || messages || chr(10) || tools) as example_id
from named
