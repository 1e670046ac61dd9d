-- One row per file that an erased row was loaded from.
-- Reads temp.erased_interactions, temp.erased_feedback and raw.files.

with

loaded as (
    select file_digest
    from temp.erased_interactions
    where reason is not null
    union
    select file_digest
    from temp.erased_feedback
    where reason is not null
)

select distinct files.path
from loaded
inner join raw.files as files on loaded.file_digest = files.digest
order by files.path
