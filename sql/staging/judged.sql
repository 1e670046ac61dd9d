-- One row per interaction of the workload under curation that a signal names: the prompt that it
-- shares with others, and the logged answer. Reads staging.signals and staging.interactions.

with

named as (
    select unnest(interaction_ids || [chosen_id, rejected_id, renewed_id]) as interaction_id
    from staging.signals
)

select
    interactions.interaction_id,
    interactions.example_id,
    interactions.message
from staging.interactions as interactions
semi join named using (interaction_id)
order by interactions.interaction_id
