-- One row per interaction of the workload: the objection that keeps it from being an example, or
-- null. An answer that people dislike is left out, unless somebody corrected it. Of equal requests
-- (messages and tools) one stands for all: a corrected answer before a logged one, one that nobody
-- dislikes before others, then the newest. Another row that offers a tool which the holdout
-- offers is left out, so that the holdout's functions stay unseen. What a rule found is its `mark`;
-- `flags` are what rules found in interactions that they let pass, and `weight` is the product of
-- their factors. Reads staging.* and judgements, which curate hands over, one row per interaction.

with

accepted as (
    select
        judgements.interaction_id,
        judgements.side,
        judgements.tool_names::varchar[] as tool_names,
        case when not answers.is_corrected then answers.dislike end as dislike,
        first_value(judgements.interaction_id) over (
            partition by interactions.example_id
            order by
                answers.is_corrected desc,
                answers.dislike is null desc,
                answers.answered_at desc,
                judgements.interaction_id asc
        ) as representative_id
    from judgements
    inner join staging.interactions as interactions using (interaction_id)
    inner join staging.answers as answers using (interaction_id)
    where judgements.objection is null
),

holdout_tools as (
    select distinct unnest(tool_names) as tool_name
    from accepted
    where side = 'holdout' and dislike is null and $split = 'tools'
),

offered as (
    select
        interaction_id,
        unnest(tool_names) as tool_name
    from accepted
    where side != 'holdout'
),

seen as (
    select distinct offered.interaction_id
    from offered
    inner join holdout_tools using (tool_name)
)

select
    judgements.interaction_id,
    judgements.workload_id,
    accepted.representative_id,
    $judged_at::timestamptz as judged_at,
    judgements.mark,
    judgements.is_held,
    judgements.flags,
    judgements.weight,
    case
        when judgements.objection is not null then judgements.objection
        when accepted.dislike is not null and seen.interaction_id is null then accepted.dislike
        when accepted.representative_id != judgements.interaction_id then 'duplicate'
        when seen.interaction_id is not null then 'offers_holdout_tool'
    end as objection
from judgements
left join accepted using (interaction_id)
left join seen using (interaction_id)
