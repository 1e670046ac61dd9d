-- One row per client of the workload under curation that was never seen in it before, with the time
-- when it was first loaded. Reads staging.interactions and curated.clients.

select
    interactions.workload_id,
    interactions.client_id,
    min(interactions.loaded_at) as first_loaded_at
from staging.interactions as interactions
anti join curated.clients using (workload_id, client_id)
group by interactions.workload_id, interactions.client_id
