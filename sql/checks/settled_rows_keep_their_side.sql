-- Interactions of the workload that do not stand where a snapshot settled their request.

select
    standings.interaction_id,
    standings.side,
    sides.side as settled
from curated.standings as standings
inner join curated.sides as sides
    on standings.workload_id = sides.workload_id and standings.ties[1] = sides.group_id
where standings.workload_id = $workload_id and standings.side != sides.side
