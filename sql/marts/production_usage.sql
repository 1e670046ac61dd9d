-- One row: the mean tokens that the logged responses of the named interactions say they took, in,
-- of those how many had been cached and how many were written to the cache, and out, how many of
-- the responses say so, and of how many models they are. What a record says beside its response
-- counts before what the response says. What a version of ours answered is not production's. Reads
-- raw.contents.

with

named as (
    select unnest($interaction_ids::varchar[]) as interaction_id
),

said as (
    select
        response ->> '$.model' as model_name,
        coalesce(
            try_cast(extra ->> '$.usage.prompt_tokens' as double),
            try_cast(response ->> '$.usage.prompt_tokens' as double)
        ) as input_tokens,
        coalesce(
            try_cast(extra ->> '$.usage.prompt_tokens_details.cached_tokens' as double),
            try_cast(response ->> '$.usage.prompt_tokens_details.cached_tokens' as double)
        ) as cached,
        if(cached between 0 and input_tokens, cached, 0) as cached_tokens,
        coalesce(
            try_cast(extra ->> '$.usage.prompt_tokens_details.cache_creation_tokens' as double),
            try_cast(response ->> '$.usage.prompt_tokens_details.cache_creation_tokens' as double),
            try_cast(response ->> '$.usage.cache_creation_input_tokens' as double)
        ) as written,
        if(written between 0 and input_tokens - cached_tokens, written, 0) as written_tokens,
        coalesce(
            try_cast(extra ->> '$.usage.completion_tokens' as double),
            try_cast(response ->> '$.usage.completion_tokens' as double)
        ) as output_tokens
    from raw.contents
    semi join named using (interaction_id)
    where extra ->> '$.served.version' is null
)

select
    count(*) as requests,
    count(distinct model_name) as models,
    coalesce(avg(input_tokens), 0) as input_tokens,
    coalesce(avg(cached_tokens), 0) as cached_tokens,
    coalesce(avg(written_tokens), 0) as written_tokens,
    coalesce(avg(output_tokens), 0) as output_tokens
from said
-- Zeros stand where nothing was counted; to DuckDB, NaN is above every number.
where input_tokens between 1 and 1e9 and output_tokens between 0 and 1e9
