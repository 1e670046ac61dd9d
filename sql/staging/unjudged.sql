-- One row per interaction to judge, in the order of their ids. Reads candidates, a view of
-- staging/candidates, and unjudged, which curate hands over, one row per interaction.

select candidates.*
from candidates
semi join unjudged using (interaction_id)
order by candidates.interaction_id
