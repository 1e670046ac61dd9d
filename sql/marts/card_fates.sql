-- One row per fate of the workload's feedback, the most frequent first. Reads marts.fates.

select
    fate,
    signals
from marts.fates
where workload_id = $workload_id
order by signals desc, fate asc
