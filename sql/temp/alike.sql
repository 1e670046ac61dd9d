-- One row per time and likeness that a stored row shares with one of this load, numbered in the
-- order of time: what may be one interaction in two wordings. Rows of this load have row ids above
-- $last_row and one of the $digests, which are from $lowest to $highest. Reads raw.interactions.

with

loaded as (
    select
        rowid as row_id,
        timestamp,
        likeness
    from raw.interactions
    where
        rowid > $last_row
        and file_digest between $lowest and $highest
        and list_contains($digests, file_digest)
),

pairs as (
    select distinct
        loaded.timestamp,
        loaded.likeness
    from loaded
    inner join raw.interactions as neighbours
        on
            loaded.timestamp = neighbours.timestamp
            and loaded.likeness = neighbours.likeness
            and loaded.row_id != neighbours.rowid
    where neighbours.timestamp between $earliest and $latest
)

select
    timestamp,
    likeness,
    row_number() over (order by timestamp, likeness) as number
from pairs
