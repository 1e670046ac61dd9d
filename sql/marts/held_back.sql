-- One row per interaction that a rule holds for a person, with what was asked and answered, the
-- oldest first. Reads marts.held and raw.contents.

select
    held.interaction_id,
    held.workload_id,
    held.client_id,
    held.logged_at,
    held.rule,
    held.mark,
    contents.request ->> '$.messages' as messages,
    contents.response ->> '$.choices[0].message' as answer
from marts.held as held
inner join raw.contents as contents using (interaction_id)
where
    starts_with(held.interaction_id, $beginning)
    and ($workload_id::varchar is null or held.workload_id = $workload_id)
order by held.logged_at, held.interaction_id
