-- One row per model of a workload whose answers since a time say how long they took: how many do,
-- and the median and the 95th percentile in milliseconds, between two values in proportion. The
-- model is the one that the logged response names. Answers that client or engine cut off before
-- their end don't count. Reads raw.interactions.

with

answers as (
    select
        json_extract(
            coalesce(record, payload),
            ['$.response.model', '$.duration_ms', '$.response.choices[0].finish_reason']
        ) as field
    from raw.interactions
    where
        workload_id = $workload_id and timestamp >= $since
        and contains(coalesce(record, payload), '"duration_ms"') -- most logs say no times
),

named as (
    select
        coalesce(field[1] ->> '$', 'not named') as model_name,
        case
            when left(field[2], 1) between '0' and '9' then try_cast(field[2] as double)
        end as duration_ms
    from answers
    where coalesce(field[3] ->> '$', '') not in ('client_gone', 'upstream_cut')
)

select
    model_name,
    count(*) as timed,
    quantile_cont(duration_ms, 0.5) as p50_ms,
    quantile_cont(duration_ms, 0.95) as p95_ms
from named
where duration_ms is not null
group by model_name
order by model_name
