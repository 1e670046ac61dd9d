-- At most one row: the last load from the path, by that source with those defaults, that can be
-- read on from. Reads raw.files.

select
    digest,
    size,
    rows
from raw.files
where
    path = $path
    and source = $source_name
    and workload_id = $workload_id
    and client_id = $client_id
    and size is not null
order by loaded_at desc, size desc
limit 1
