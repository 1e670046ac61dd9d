-- One row per interaction of the workload that was placed on a side, whether it becomes an example
-- or not. Reads judgements, which curate hands over, one row per interaction.

select
    interaction_id,
    workload_id,
    $split as split_by,
    ties,
    cluster_id,
    component_id,
    label,
    side,
    stratum,
    draw_id
from judgements
where side is not null
