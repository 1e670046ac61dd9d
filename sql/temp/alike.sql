-- One row per time and likeness that a stored row shares with one of this load, numbered in the
-- order of time: what may be one interaction in two wordings. Rows of this load have row ids above
-- $last_row and one of the $digests, which are from $lowest to $highest. Reads raw.interactions.

with

loaded as (
    select distinct
        timestamp,
        likeness
    from raw.interactions
    where
        rowid > $last_row
        and file_digest between $lowest and $highest
        and list_contains($digests, file_digest)
),

-- Counted, not paired: thousands may be alike, as one request sent again and again without a time.
shared as (
    select
        timestamp,
        likeness
    from raw.interactions
    semi join loaded using (timestamp, likeness)
    where timestamp between $earliest and $latest
    group by timestamp, likeness
    having count(*) > 1
)

select
    timestamp,
    likeness,
    row_number() over (order by timestamp, likeness) as number
from shared
