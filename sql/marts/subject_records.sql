-- One row per interaction or feedback, in raw or in the archive, that is erased, or (if not
-- `is_erased`) that is not: its canonical record. Reads raw.interactions, raw.feedback,
-- temp.erased_interactions and temp.erased_feedback, and the files of retention, which erase hands
-- over as archived_interactions and archived_feedback.

with

held as (
    select
        interaction_id as id,
        coalesce(record, payload) as canonical
    from raw.interactions
    union all
    select
        feedback_id as id,
        coalesce(record, payload) as canonical
    from raw.feedback
    union all
    select
        interaction_id as id,
        coalesce(record, payload) as canonical
    from archived_interactions
    union all
    select
        feedback_id as id,
        coalesce(record, payload) as canonical
    from archived_feedback
),

erased as (
    select id
    from temp.erased_interactions
    where reason is not null
    union
    select id
    from temp.erased_feedback
    where reason is not null
)

select held.canonical as record
from held
left join erased using (id)
where (erased.id is not null) = $is_erased
