-- One row per recorded snapshot of the workload. Reads raw.manifests.

select path
from raw.manifests
where workload_id = $workload_id and kind = 'snapshot'
order by path
