-- One row per interaction of the workload: the objection that keeps it from being an example, or
-- null. An answer that people dislike is left out, unless somebody corrected it. Of twins, requests
-- that are equal or nearly so, one stands for all: a corrected answer before a logged one, one that
-- nobody dislikes before others, then what is most liked, then the newest. But a request that was
-- held out in a snapshot stays, for the holdout only grows: it stands for its twins. Another row
-- that offers a tool which the holdout offers is left out, so that the holdout's functions stay
-- unseen. What a rule found is its `mark`; `flags` are what rules found in interactions that they
-- let pass, and `weight` is the product of their factors. What would be trained on, and a rejection
-- blames, is held for a person. Reads curated.holdout_rows, staging.* and judgements, which curate
-- hands over, one row per interaction.

with

judged as (
    select
        judgements.interaction_id,
        judgements.side,
        judgements.twin_id,
        redacted.example_id,
        answers.is_corrected,
        answers.regard,
        answers.answered_at,
        judgements.tool_names::varchar[] as tool_names,
        case when not answers.is_corrected then answers.dislike end as dislike,
        case when answers.is_corrected or answers.dislike is null then held.example_id end
            as held_id
    from judgements
    inner join staging.redacted as redacted using (interaction_id)
    inner join staging.answers as answers using (interaction_id)
    left join curated.holdout_rows as held
        on judgements.workload_id = held.workload_id and redacted.example_id = held.example_id
    where judgements.objection is null
),

chosen as (
    select
        *,
        coalesce(held_id, min(held_id) over (partition by twin_id), twin_id) as choice_id
    from judged
),

accepted as (
    select
        interaction_id,
        side,
        tool_names,
        dislike,
        example_id,
        first_value(interaction_id) over twins as representative_id,
        first_value(example_id) over twins as representative_example_id
    from chosen
    window twins as (
        partition by choice_id
        order by
            held_id is not null desc,
            is_corrected desc,
            dislike is null desc,
            regard desc,
            answered_at desc,
            interaction_id asc
    )
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
),

objected as (
    select
        judgements.*,
        accepted.representative_id,
        blamed.decision,
        case
            when judgements.objection is not null then judgements.objection
            when accepted.dislike is not null and seen.interaction_id is null then accepted.dislike
            when accepted.representative_example_id != accepted.example_id then 'near_duplicate'
            when accepted.representative_id != accepted.interaction_id then 'duplicate'
            when blamed.is_held and accepted.side != 'holdout' then 'blamed'
            when seen.interaction_id is not null then 'offers_holdout_tool'
        end as final_objection
    from judgements
    left join accepted using (interaction_id)
    left join seen using (interaction_id)
    left join staging.blamed as blamed using (interaction_id)
)

select
    interaction_id,
    workload_id,
    representative_id,
    $judged_at::timestamptz as judged_at,
    flags,
    weight,
    final_objection as objection,
    case when final_objection = 'blamed' then 'decision ' || decision else mark end as mark,
    is_held or coalesce(final_objection = 'blamed', false) as is_held
from objected
