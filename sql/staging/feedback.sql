-- One row per actor, response and kind of feedback in the workload under curation: people change
-- their minds, and their newest word counts. Reads raw.feedback.

select
    feedback_id,
    workload_id,
    client_id,
    response_id,
    actor_id,
    kind,
    timestamp as given_at,
    json_extract(payload, '$.value') as value
from raw.feedback
where workload_id = $workload_id
qualify row_number() over (
    partition by client_id, response_id, actor_id, kind
    order by timestamp desc, feedback_id asc
) = 1
