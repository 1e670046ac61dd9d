-- One row per workload and verdict, `kept` where no rule objected, with how many interactions it
-- fell on. Reads curated.verdicts.

select
    workload_id,
    coalesce(objection, 'kept') as verdict,
    count(*) as interactions
from curated.verdicts
group by all
order by workload_id, verdict
