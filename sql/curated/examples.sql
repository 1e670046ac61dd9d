-- One row per example of the workload: a distinct request that no rule objected to, with the
-- answer to learn, what production answered, the weight that people's regard gives it and the ids
-- it came from. Reads curated.verdicts, staging.*, and judgements, which curate hands over, one row
-- per interaction.

with

sources as (
    select
        representative_id,
        list(interaction_id order by interaction_id) as interaction_ids
    from curated.verdicts
    where workload_id = $workload_id and representative_id is not null
    group by representative_id
)

select
    redacted.example_id,
    interactions.workload_id,
    interactions.client_id,
    interactions.logged_at,
    judgements.side,
    judgements.label,
    judgements.language,
    judgements.tool_names,
    redacted.messages,
    redacted.tools,
    redacted.answer,
    redacted.acceptable,
    judgements.logged_answer,
    judgements.component_id as cluster_id,
    sources.interaction_ids,
    answers.feedback_ids,
    $split as split_by,
    judgements.ties[2] as group_id,
    verdicts.weight * pow($lift, answers.regard) as weight
from curated.verdicts as verdicts
inner join judgements using (interaction_id)
inner join staging.interactions as interactions using (interaction_id)
inner join staging.redacted as redacted using (interaction_id)
inner join staging.answers as answers using (interaction_id)
inner join sources on verdicts.interaction_id = sources.representative_id
where verdicts.workload_id = $workload_id and verdicts.objection is null
