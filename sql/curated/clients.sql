-- One row per client that has $established requests in the workload under curation and had not
-- before, with the time when that many were loaded; clients of one party are one. Reads
-- staging.interactions and curated.clients.

with

named as (
    select
        workload_id,
        interaction_id,
        loaded_at,
        coalesce(party_id, client_id) as client_id
    from staging.interactions
)

select
    named.workload_id,
    named.client_id,
    named.loaded_at as first_loaded_at
from named
anti join curated.clients using (workload_id, client_id)
qualify
    row_number() over (
        partition by named.workload_id, named.client_id
        order by named.loaded_at asc nulls last, named.interaction_id asc
    ) = $established
