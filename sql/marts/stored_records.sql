-- One row per interaction or feedback event, in raw or in the archive: its canonical record.
-- Reads raw.interactions, raw.feedback, and the files of retention, which erase presents as
-- archived_interactions and archived_feedback.

select coalesce(record, payload) as record
from raw.interactions
union all
select coalesce(record, payload) as record
from raw.feedback
union all
select coalesce(record, payload) as record
from archived_interactions
union all
select coalesce(record, payload) as record
from archived_feedback
