-- One row per interaction that is erased, in raw or in the archive: its canonical record, and its
-- time in microseconds since 1970. Reads raw.interactions, temp.erased_interactions and the files
-- of retention, which erase hands over as archived_interactions.

with

held as (
    select
        interaction_id as id,
        timestamp,
        coalesce(record, payload) as canonical
    from raw.interactions
    union all
    select
        interaction_id as id,
        timestamp,
        coalesce(record, payload) as canonical
    from archived_interactions
)

select
    held.canonical as record,
    epoch_us(held.timestamp)::varchar as microseconds
from held
inner join temp.erased_interactions as erased using (id)
where erased.reason is not null
