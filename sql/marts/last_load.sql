-- One row: when anything new was last loaded from the place, by that source with those defaults;
-- null if never. Reads raw.files.

select max(loaded_at) as loaded_at
from raw.files
where
    path = $path
    and source = $source_name
    and workload_id = $workload_id
    and client_id = $client_id
