-- One row per tie (a request, a conversation, a user, a set of tools) of the workload's rows whose
-- side no snapshot has settled yet: the strictest side that a row with it stands on.
-- Reads curated.standings and curated.sides.

with

tied as (
    select
        workload_id,
        split_by,
        side,
        stratum,
        draw_id,
        unnest(ties) as group_id
    from curated.standings
    where workload_id = $workload_id
)

select
    tied.workload_id,
    tied.group_id,
    tied.split_by,
    tied.side,
    tied.stratum,
    tied.draw_id,
    $settled_at::timestamptz as settled_at
from tied
anti join curated.sides using (workload_id, group_id)
qualify row_number() over (
    partition by tied.group_id
    order by
        list_position(['holdout', 'validation', 'train'], tied.side) asc,
        tied.draw_id asc nulls last
) = 1
