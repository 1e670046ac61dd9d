-- One row per interaction of a sample of a workload: its canonical record. Ids are digests, so the
-- first of them are a random sample that is always the same. Longer records than $most_bytes are
-- left out. Reads raw.interactions.

select coalesce(record, payload) as record
from raw.interactions
where workload_id = $workload_id and strlen(coalesce(record, payload)) <= $most_bytes
order by interaction_id
limit $most
