-- One row per example on one side of the workload, from the id $first to $last, in the order
-- that its snapshot holds them; what production answered goes only where it is scored.
-- Reads curated.examples.

select
    example_id,
    messages,
    tools,
    answer,
    acceptable,
    weight,
    group_id,
    label,
    language,
    client_id,
    logged_at,
    interaction_ids,
    feedback_ids,
    case when side = 'holdout' then logged_answer end as logged_answer
from curated.examples
where
    workload_id = $workload_id
    and side = $side
    and example_id between $first and $last
order by example_id
