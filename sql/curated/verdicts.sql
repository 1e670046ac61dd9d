-- One row per interaction of the workload: the objection that keeps it from being an example, or
-- null. All of this holds within a client: what another one logged or said decides nothing, and
-- only rows with one request and one answer are one across clients. An answer that people dislike
-- is left out, unless somebody corrected it. Requests that are equal have one right answer
-- (`answer_name`, empty for free text, and for short texts where they don't recur as labels do,
-- as in a chat): a corrected one before logged ones, one that somebody does
-- not dislike before others, then what is most liked, then what was answered most often, then the
-- newest. The others conflict with it; their `mark` says what it won by. Of twins, requests that
-- are equal or nearly so and have the same right answer, one stands for all, chosen alike; those
-- that were logged in other words are near-duplicates, though they may be equal without personal
-- data. But a request that was held out in a snapshot stays, for the holdout only grows: it stands
-- for its twins. Another row that offers a tool which the holdout offers is left out, so that the
-- holdout's functions stay unseen, and so is a row to train on that offers one of the validation
-- side. What a rule found is its `mark`; `flags` are what rules found in interactions that they let
-- pass, and `weight` is the product of their factors. What would be trained on, and a rejection
-- blames, is held for a person. Reads curated.holdout_rows, staging.* and judgements, which curate
-- hands over, one row per interaction.

with

named as (
    select
        judgements.interaction_id,
        redacted.owner_id,
        judgements.answer_name,
        left(judgements.answer_name, 1) in ('[', '{') as is_json
    from judgements
    inner join staging.redacted as redacted using (interaction_id)
    where judgements.objection is null and judgements.answer_name != ''
),

labelled as (
    select
        owner_id,
        count(distinct answer_name) <= 20
        or count(*) >= 5 * count(distinct answer_name) as has_labels
    from named
    where not is_json
    group by owner_id
),

judged as (
    select
        judgements.interaction_id,
        judgements.side,
        redacted.example_id,
        judgements.tool_names::varchar[] as tool_names,
        judgements.ties[1] as request_id,
        concat_ws(chr(10), redacted.owner_id, judgements.twin_id) as twin_id,
        concat_ws(
            chr(10),
            redacted.owner_id,
            coalesce(held.example_id, judgements.equal_id::varchar, redacted.example_id)
        ) as equal_id,
        coalesce(answers.is_corrected, false) as is_corrected,
        coalesce(answers.regard, 0) as regard,
        coalesce(answers.answered_at, redacted.logged_at) as answered_at,
        if(named.is_json or labelled.has_labels, named.answer_name, '') as answer_name,
        case when not answers.is_corrected then answers.dislike end as dislike,
        case when answers.is_corrected or answers.dislike is null then held.example_id end
            as held_id
    from judgements
    inner join staging.redacted as redacted using (interaction_id)
    left join named using (interaction_id)
    left join labelled on named.owner_id is not distinct from labelled.owner_id
    left join staging.answers as answers using (interaction_id)
    left join curated.holdout_rows as held
        on judgements.workload_id = held.workload_id and redacted.example_id = held.example_id
    where judgements.objection is null
),

answered as (
    select
        equal_id,
        answer_name,
        bool_or(is_corrected) as is_corrected,
        bool_or(dislike is null) as is_tolerated,
        max(regard) as regard,
        if(bool_or(is_corrected), 1, count(*)) as answers,
        coalesce(max(answered_at) filter (where is_corrected), max(answered_at)) as answered_at
    from judged
    group by equal_id, answer_name
),

-- Windows are only over what competes: most answers and most requests are alone, and a window
-- costs several times as much as counting does.
contested as (
    select equal_id
    from answered
    group by equal_id
    having count(*) > 1
),

ranked as (
    select
        *,
        row_number() over equals as place,
        lead(is_corrected) over equals as next_is_corrected,
        lead(is_tolerated) over equals as next_is_tolerated,
        lead(regard) over equals as next_regard,
        lead(answers) over equals as next_answers
    from answered
    semi join contested using (equal_id)
    window equals as (
        partition by equal_id
        order by
            is_corrected desc,
            is_tolerated desc,
            regard desc,
            answers desc,
            answered_at desc,
            answer_name asc
    )
),

won as (
    select
        equal_id,
        answer_name as right_name,
        case
            when is_corrected > next_is_corrected then 'a correction'
            when is_tolerated > next_is_tolerated or regard > next_regard
                then 'what people said of it'
            when answers > next_answers then 'the number of answers'
            else 'its time'
        end as won_by
    from ranked
    where place = 1
    union all
    select
        equal_id,
        answer_name as right_name,
        null as won_by
    from answered
    anti join contested using (equal_id)
),

held_twins as (
    select
        judged.twin_id,
        won.right_name,
        min(judged.held_id) as held_id
    from judged
    inner join won using (equal_id)
    where judged.held_id is not null
    group by judged.twin_id, won.right_name
),

chosen as (
    select
        judged.*,
        won.won_by,
        judged.answer_name != won.right_name as conflicts,
        coalesce(
            judged.held_id,
            held_twins.held_id,
            judged.twin_id || chr(10) || won.right_name
        ) as choice_id
    from judged
    inner join won using (equal_id)
    left join held_twins
        on judged.twin_id = held_twins.twin_id and won.right_name = held_twins.right_name
),

crowded as (
    select choice_id
    from chosen
    group by choice_id
    having count(*) > 1
),

represented as (
    select
        interaction_id,
        first_value(interaction_id) over twins as representative_id,
        first_value(example_id) over twins as representative_example_id,
        first_value(request_id) over twins as representative_request_id
    from chosen
    semi join crowded using (choice_id)
    window twins as (
        partition by choice_id
        order by
            conflicts asc,
            held_id is not null desc,
            is_corrected desc,
            dislike is null desc,
            regard desc,
            answered_at desc,
            interaction_id asc
    )
),

accepted as (
    select
        chosen.interaction_id,
        chosen.side,
        chosen.tool_names,
        chosen.dislike,
        chosen.example_id,
        chosen.request_id,
        chosen.held_id,
        chosen.conflicts,
        chosen.won_by,
        coalesce(represented.representative_id, chosen.interaction_id) as representative_id,
        coalesce(represented.representative_example_id, chosen.example_id)
            as representative_example_id,
        coalesce(represented.representative_request_id, chosen.request_id)
            as representative_request_id
    from chosen
    left join represented using (interaction_id)
),

holdout_tools as (
    select distinct unnest(tool_names) as tool_name
    from accepted
    where side = 'holdout' and dislike is null and $split = 'tools'
),

offered as (
    select
        interaction_id,
        side,
        dislike,
        unnest(tool_names) as tool_name
    from accepted
    where side != 'holdout'
),

offering_held as (
    select distinct offered.interaction_id
    from offered
    inner join holdout_tools using (tool_name)
),

validation_tools as (
    select distinct offered.tool_name
    from offered
    anti join offering_held using (interaction_id)
    where offered.side = 'validation' and offered.dislike is null and $split = 'tools'
),

offering_validation as (
    select distinct offered.interaction_id
    from offered
    inner join validation_tools using (tool_name)
    anti join offering_held using (interaction_id)
    where offered.side = 'train'
),

seen as (
    select
        interaction_id,
        'offers_holdout_tool' as seen_objection
    from offering_held
    union all
    select
        interaction_id,
        'offers_validation_tool' as seen_objection
    from offering_validation
),

shared_requests as (
    select distinct request_key
    from staging.redacted
    where example_id != request_key
),

-- None where one client logs: nothing is joined then.
sharing as (
    select
        interaction_id,
        request_key,
        answer
    from staging.redacted
    semi join shared_requests using (request_key)
),

standing_for_others as (
    select
        accepted.interaction_id,
        first_value(accepted.interaction_id) over (
            partition by redacted.request_key, redacted.answer, accepted.side
            order by
                accepted.example_id = redacted.request_key desc,
                accepted.example_id asc
        ) as shared_id,
        accepted.example_id != redacted.request_key as is_shared
    from accepted
    inner join sharing as redacted using (interaction_id)
    left join staging.blamed as blamed using (interaction_id)
    anti join seen on accepted.interaction_id = seen.interaction_id
    where
        accepted.representative_id = accepted.interaction_id
        and not accepted.conflicts
        and accepted.dislike is null
        and not coalesce(blamed.is_held and accepted.side != 'holdout', false)
        and (accepted.held_id is null or accepted.example_id = redacted.request_key)
),

shared as (
    select
        interaction_id as representative_id,
        shared_id
    from standing_for_others
    where is_shared and interaction_id != shared_id
),

objected as (
    select
        judgements.*,
        accepted.won_by,
        blamed.decision,
        coalesce(shared.shared_id, accepted.representative_id) as representative_id,
        case
            when judgements.objection is not null then judgements.objection
            when accepted.dislike is not null and seen.interaction_id is null then accepted.dislike
            when accepted.conflicts then 'conflicting_answer'
            when accepted.representative_example_id != accepted.example_id then 'near_duplicate'
            when accepted.representative_request_id != accepted.request_id then 'near_duplicate'
            when accepted.representative_id != accepted.interaction_id then 'duplicate'
            when shared.shared_id is not null then 'duplicate'
            when blamed.is_held and accepted.side != 'holdout' then 'blamed'
            when seen.interaction_id is not null then seen.seen_objection
        end as final_objection
    from judgements
    left join accepted using (interaction_id)
    left join shared on accepted.representative_id = shared.representative_id
    left join seen using (interaction_id)
    left join staging.blamed as blamed using (interaction_id)
)

select
    objected.interaction_id,
    objected.workload_id,
    objected.representative_id,
    $judged_at::timestamptz as judged_at,
    objected.flags,
    objected.weight,
    objected.final_objection as objection,
    case objected.final_objection
        when 'blamed' then 'decision ' || objected.decision
        when 'conflicting_answer' then 'another answer won by ' || objected.won_by
        else objected.mark
    end as mark,
    objected.is_held or coalesce(objected.final_objection = 'blamed', false) as is_held
from objected
