-- One row per output that the erasure tainted. Reads raw.tainted.

select
    kind,
    workload_id as workload,
    key
from raw.tainted
where certificate_id = $certificate_id
order by kind, workload, key
