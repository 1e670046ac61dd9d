-- One row per erased interaction or feedback event, in raw or in the archive.
-- Reads temp.erased_interactions and temp.erased_feedback.

select
    'interactions' as kind,
    id
from temp.erased_interactions
where reason is not null
union
select
    'feedback' as kind,
    id
from temp.erased_feedback
where reason is not null
order by kind, id
