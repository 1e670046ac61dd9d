-- One row per burst that curation found in the workload's feedback, the first first.
-- Reads curated.bursts.

select
    kind,
    actors,
    first_at,
    last_at,
    found,
    expected,
    chance,
    aim,
    len(held_back) as held_back
from curated.bursts
where workload_id = $workload_id
order by first_at, kind, actors
