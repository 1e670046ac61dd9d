-- One row per interaction, of one workload or (null) of all, in the order of time: its canonical
-- record as one line of JSON, whether it is in the warehouse or retention took it out.
-- Reads raw.interactions and archived, the files of retention, which export hands over.

with

held as (
    select
        timestamp,
        interaction_id,
        workload_id,
        coalesce(record, payload) as canonical
    from raw.interactions
    union all
    select
        timestamp,
        interaction_id,
        workload_id,
        coalesce(record, payload) as canonical
    from archived
)

select json(canonical)::varchar as line
from held
where $workload_id::varchar is null or workload_id = $workload_id
order by timestamp, interaction_id
