-- One row per kind of traced feedback: how many events, and the first three. Reads raw.feedback and
-- `traced_rows` (kind, id), which lineage hands over.

select
    feedback.kind,
    count(*) as events,
    list_slice(list(feedback.feedback_id order by feedback.timestamp, feedback.feedback_id), 1, 3)
        as first_ids
from raw.feedback as feedback
inner join traced_rows as traced
    on feedback.feedback_id = traced.id and traced.kind = 'feedback'
group by feedback.kind
order by feedback.kind
