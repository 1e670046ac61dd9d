-- One row per client of the workload under curation that was never seen in it before, with the time
-- when it was first loaded; clients of one party are one. Reads staging.interactions and
-- curated.clients.

with

named as (
    select
        workload_id,
        loaded_at,
        coalesce(party_id, client_id) as client_id
    from staging.interactions
)

select
    named.workload_id,
    named.client_id,
    min(named.loaded_at) as first_loaded_at
from named
anti join curated.clients using (workload_id, client_id)
group by named.workload_id, named.client_id
