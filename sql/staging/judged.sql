-- One row per interaction of the workload under curation that a signal names: the prompt that it
-- shares with others of its client, and the logged answer; null if that was cut off before its end,
-- as no pair and no label may teach half an answer. Reads staging.signals, staging.interactions,
-- staging.texts and staging.shared_names.

with

named as (
    select unnest(interaction_ids || [chosen_id, rejected_id, renewed_id]) as interaction_id
    from staging.signals
),

owned as (
    select
        *,
        coalesce(party_id, client_id) as owner_id
    from staging.interactions
)

select
    interactions.interaction_id,
    case
        when
            coalesce(interactions.finish_reason, '') not in (
                'client_gone', 'upstream_cut', 'several_answers'
            )
            then texts.message
    end as message,
    case
        when requests.first_client_id != interactions.owner_id
            then md5(interactions.example_id || chr(10) || interactions.owner_id)
        else interactions.example_id
    end as example_id
from owned as interactions
inner join staging.texts as texts using (interaction_id)
semi join named on interactions.interaction_id = named.interaction_id
left join staging.shared_names as requests
    on requests.name_kind = 'request' and interactions.example_id = requests.shared_name
order by interactions.interaction_id
