-- One row per archive file with erased rows of the kind: their ids.
-- Reads raw.archived, temp.erased_interactions and temp.erased_feedback.

with

erased as (
    select
        'interactions' as kind,
        id
    from temp.erased_interactions
    where reason is not null and is_archived
    union
    select
        'feedback' as kind,
        id
    from temp.erased_feedback
    where reason is not null and is_archived
)

select
    archived.path,
    list(distinct archived.id order by archived.id) as ids
from raw.archived as archived
semi join erased using (kind, id)
where archived.kind = $kind
group by archived.path
order by archived.path
