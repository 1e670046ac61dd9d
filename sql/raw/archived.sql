-- One row per row of the month that was exported to the path.
-- Reads temp.old_interactions and temp.old_feedback.

with

old as (
    select
        'interactions' as kind,
        id,
        timestamp,
        month
    from temp.old_interactions
    union all
    select
        'feedback' as kind,
        id,
        timestamp,
        month
    from temp.old_feedback
)

select
    kind,
    id,
    timestamp,
    $place as path
from old
where kind = $kind and month = $month
