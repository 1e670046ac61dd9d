-- One row per stored feedback that has its time, its target, its actor and its kind in common with
-- another one, at least one of them of this load (row ids above $last_row): what may be one in two
-- wordings, in the order in which it was stored. Reads raw.feedback.

with

loaded as (
    select
        min(timestamp) as earliest,
        max(timestamp) as latest
    from raw.feedback
    where rowid > $last_row
),

near as (
    select
        rowid as row_id,
        coalesce(record, payload) as record,
        concat_ws(
            chr(10),
            epoch_us(timestamp), workload_id, client_id,
            'response ' || response_id, 'conversation ' || conversation_id, 'target ' || target_id,
            'actor ' || actor_id, kind
        ) as occasion
    from raw.feedback
    where
        timestamp between (select earliest from loaded) and (select latest from loaded)
)

select
    occasion,
    row_id,
    record
from near
qualify
    count(*) over (partition by occasion) > 1
    and max(row_id) over (partition by occasion) > $last_row
order by occasion, row_id
