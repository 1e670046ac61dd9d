-- One row per interaction of the workload that a rejection blames and that nobody has judged since:
-- the decision, and whether it is held until then, which only what was learned is, unless a person
-- released it. Reads curated.blamed, curated.releases, staging.*, and judgements, which curate
-- hands over, one row per interaction.

with

blamed as (
    select *
    from curated.blamed
    where workload_id = $workload_id
),

named as (
    select
        redacted.interaction_id,
        blamed.decision,
        blamed.blamed_at,
        blamed.is_learned
    from staging.redacted as redacted
    inner join blamed on redacted.example_id = blamed.name
    where blamed.kind = 'request'
    union all
    select
        interactions.interaction_id,
        blamed.decision,
        blamed.blamed_at,
        false as is_learned
    from staging.interactions as interactions
    inner join blamed on interactions.client_id = blamed.name
    where blamed.kind = 'client'
    union all
    select
        judgements.interaction_id,
        blamed.decision,
        blamed.blamed_at,
        false as is_learned
    from judgements
    inner join blamed on judgements.label = blamed.name
    where blamed.kind = 'tool'
),

words as (
    select
        interactions.interaction_id,
        max(feedback.given_at) as last_word_at
    from staging.feedback as feedback
    inner join staging.interactions as interactions using (client_id, response_id)
    where feedback.kind in ('thumb', 'rating', 'correction', 'choice')
    group by interactions.interaction_id
)

select
    named.interaction_id,
    max(named.decision) as decision,
    bool_or(named.is_learned)
    and not bool_or(releases.interaction_id is not null) as is_held
from named
left join words using (interaction_id)
left join curated.releases as releases
    on named.interaction_id = releases.interaction_id and releases.rule = 'blamed'
where words.last_word_at is null or words.last_word_at < named.blamed_at
group by named.interaction_id
