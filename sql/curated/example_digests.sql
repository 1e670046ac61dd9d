-- One row per example of the workload whose content has a digest. Reads temp.frozen.

select
    workload_id,
    content_digest,
    measured_digest
from temp.frozen
where content_digest is not null
