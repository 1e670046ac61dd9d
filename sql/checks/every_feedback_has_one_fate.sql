-- Feedback of the workload of which curation does not say exactly once what became of it.

select
    given.feedback_id,
    count(fates.feedback_id) as fates
from staging.given as given
left join curated.fates as fates using (feedback_id, workload_id)
group by given.feedback_id
having count(fates.feedback_id) != 1
