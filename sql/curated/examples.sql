-- One row per example of the workload: a distinct request that no rule objected to, with the
-- answer to learn, what production answered, the weight that people's regard gives it and the ids
-- it came from. Reads curated.verdicts, staging.*, and what curate hands over, one row per
-- interaction: judgements, clusters, which tell what rows are not independent of each other, and
-- surrogates, the texts in which these stand for placeholders. Texts that nothing changed are
-- joined last: what they pass through would hold all of them.

with

-- Most rows stand for themselves alone, which costs less to see than to list.
crowded as (
    select distinct representative_id
    from curated.verdicts
    where workload_id = $workload_id and representative_id != interaction_id
),

sources as (
    select
        representative_id,
        list(interaction_id order by interaction_id) as interaction_ids
    from curated.verdicts
    semi join crowded using (representative_id)
    where workload_id = $workload_id
    group by representative_id
),

chosen as materialized (
    select
        verdicts.interaction_id,
        verdicts.workload_id,
        redacted.example_id,
        redacted.client_id,
        redacted.logged_at,
        judgements.side,
        judgements.label,
        judgements.language,
        judgements.tool_names,
        clusters.component_id as cluster_id,
        judgements.ties[2] as group_id,
        coalesce(answers.feedback_ids, []) as feedback_ids,
        coalesce(sources.interaction_ids, [verdicts.interaction_id]) as interaction_ids,
        coalesce(surrogates.messages, redacted.messages) as messages,
        coalesce(surrogates.tools, redacted.tools) as tools,
        coalesce(surrogates.answer, redacted.answer) as answer,
        coalesce(surrogates.acceptable, redacted.acceptable) as acceptable,
        coalesce(surrogates.logged_answer, judgements.logged_answer) as logged_answer,
        verdicts.weight * pow($lift, coalesce(answers.regard, 0)) as weight
    from curated.verdicts as verdicts
    inner join judgements using (interaction_id)
    inner join staging.redacted as redacted using (interaction_id)
    left join staging.answers as answers using (interaction_id)
    left join surrogates using (interaction_id)
    left join clusters on verdicts.interaction_id = clusters.interaction_id
    left join sources on verdicts.interaction_id = sources.representative_id
    where verdicts.workload_id = $workload_id and verdicts.objection is null
)

select
    chosen.example_id,
    chosen.workload_id,
    chosen.client_id,
    chosen.logged_at,
    chosen.side,
    chosen.label,
    chosen.language,
    chosen.tool_names,
    chosen.cluster_id,
    chosen.interaction_ids,
    chosen.feedback_ids,
    chosen.group_id,
    chosen.answer,
    chosen.logged_answer,
    chosen.weight,
    $split as split_by,
    -- Of digests, since most texts have one already.
    md5(
        chosen.example_id
        || coalesce(md5(chosen.messages), texts.messages_digest)
        || coalesce(md5(chosen.tools), texts.tools_digest)
        || md5(chosen.answer)
        || coalesce(md5(chosen.acceptable), texts.acceptable_digest, '')
    ) as content_digest,
    coalesce(chosen.messages, texts.messages) as messages,
    coalesce(chosen.tools, texts.tools) as tools,
    coalesce(chosen.acceptable, texts.acceptable) as acceptable
from chosen
inner join staging.texts as texts using (interaction_id)
