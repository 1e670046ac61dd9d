-- One row per interaction that a person could be asked about: it may be learned from, or people are
-- of two minds about it, or a rejection blames it; nobody has judged it in one mind, nor `reviewer`
-- at all, unless that was before it was blamed; it has a response id to aim an answer at, which no
-- other request has. Of equal and nearly equal requests the one that stands for all. Counts are of
-- people; `blamed` is the decision that blames it. Reads curated.verdicts, curated.standings and
-- staging.*, as curated last.

with

scaled as (
    select
        feedback_id,
        try_cast((value ->> '$') as double) as rating,
        try_cast((scale ->> '$[0]') as double) as lowest,
        try_cast((scale ->> '$[1]') as double) as highest
    from staging.feedback
    where kind = 'rating'
),

ratings as (
    select
        feedback_id,
        (rating - lowest) / nullif(highest - lowest, 0) as place
    from scaled
),

words as (
    select
        interactions.interaction_id,
        feedback.actor_id,
        feedback.kind,
        case
            when feedback.kind = 'thumb' then (feedback.value ->> '$') = 'up'
            when feedback.kind = 'correction' then false
            -- As curation reads them: within an eighth of the scale from its middle is no opinion.
            when ratings.place >= 0.625 then true
            when ratings.place <= 0.375 then false
        end as is_for
    from staging.feedback as feedback
    inner join staging.interactions as interactions using (client_id, response_id)
    left join ratings using (feedback_id)
    where feedback.kind in ('thumb', 'rating', 'correction', 'choice')
),

votes as (
    select
        interaction_id,
        count(distinct actor_id) filter (where is_for) as people_for,
        count(distinct actor_id) filter (where not is_for) as people_against,
        coalesce(bool_or(kind = 'correction'), false) as is_corrected,
        coalesce(bool_or(actor_id = $reviewer), false) as is_reviewed
    from words
    group by interaction_id
),

placed as (
    select
        standings.interaction_id,
        standings.label,
        coalesce(standings.cluster_id, standings.interaction_id) as cluster_id,
        votes.interaction_id is not null as is_judged
    from curated.standings as standings
    left join votes using (interaction_id)
    where standings.workload_id = $workload_id
),

reused as (
    select
        interactions.client_id,
        interactions.response_id
    from placed
    inner join staging.interactions as interactions using (interaction_id)
    where interactions.response_id is not null
    group by interactions.client_id, interactions.response_id
    having count(distinct placed.cluster_id) > 1
),

clusters as (
    select
        cluster_id,
        count(*) as requests,
        count(*) filter (where is_judged) as judged,
        count(distinct label) as labels
    from placed
    group by cluster_id
),

asked as (
    select
        verdicts.interaction_id,
        blamed.decision as blamed,
        [struct_extract(flag, 'rule') for flag in verdicts.flags] as flags,
        coalesce(votes.people_for, 0) as people_for,
        coalesce(votes.people_against, 0) as people_against,
        votes.people_for > 0 and votes.people_against > 0 and not votes.is_corrected as is_disputed,
        votes.interaction_id is not null as is_judged
    from curated.verdicts as verdicts
    left join votes using (interaction_id)
    left join staging.blamed as blamed using (interaction_id)
    where
        verdicts.workload_id = $workload_id
        and (blamed.decision is not null or not coalesce(votes.is_reviewed, false))
        and coalesce(verdicts.objection, '')
        not in ('duplicate', 'near_duplicate', 'conflicting_answer')
        and (
            coalesce(verdicts.objection, 'blamed') = 'blamed'
            or (votes.people_for > 0 and votes.people_against > 0)
        )
)

select
    asked.interaction_id,
    interactions.workload_id,
    interactions.client_id,
    interactions.response_id,
    redacted.example_id,
    redacted.answer,
    placed.cluster_id,
    clusters.requests,
    clusters.judged,
    clusters.labels,
    asked.people_for,
    asked.people_against,
    asked.blamed,
    coalesce(redacted.messages, texts.messages) as messages,
    coalesce(redacted.tools, texts.tools) as tools,
    list_sort(list_distinct(coalesce(asked.flags, []))) as flags
from asked
inner join staging.interactions as interactions using (interaction_id)
inner join staging.texts as texts using (interaction_id)
inner join staging.redacted as redacted using (interaction_id)
inner join placed using (interaction_id)
inner join clusters using (cluster_id)
anti join reused
    on
        interactions.client_id = reused.client_id
        and interactions.response_id = reused.response_id
where
    interactions.response_id is not null
    and (asked.is_disputed or asked.blamed is not null or not asked.is_judged)
