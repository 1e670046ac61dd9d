-- One row per stored row of the groups from $first to $last of temp.alike, group by group in the
-- order in which they were stored. Reads raw.interactions and temp.alike.

with

wanted as (
    select
        timestamp,
        likeness,
        number
    from temp.alike
    where number between $first and $last
),

span as (
    select
        min(timestamp) as earliest,
        max(timestamp) as latest
    from wanted
)

select
    wanted.number,
    interactions.rowid as row_id,
    interactions.interaction_id,
    interactions.payload,
    interactions.record
from raw.interactions as interactions
inner join wanted using (timestamp, likeness)
where
    interactions.timestamp
    between (select earliest from span) and (select latest from span)
order by wanted.number, interactions.rowid
