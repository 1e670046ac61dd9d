-- One row per workload of an erased row. Reads temp.erased_interactions and temp.erased_feedback.

select workload_id
from temp.erased_interactions
where reason is not null
union
select workload_id
from temp.erased_feedback
where reason is not null
order by workload_id
