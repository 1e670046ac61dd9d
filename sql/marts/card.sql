-- One row per figure of a snapshot's card: under its section, how many of the workload's examples
-- on each side it is true of. An example of several sources, or with several kinds of feedback,
-- counts under each. Reads curated.examples, raw.interactions and raw.feedback.

with

examples as (
    select
        example_id,
        side,
        client_id,
        label,
        interaction_ids,
        feedback_ids,
        strftime(logged_at, '%Y-%m-%d') as day
    from curated.examples
    where workload_id = $workload_id
),

named_interactions as (
    select
        example_id,
        side,
        unnest(interaction_ids) as interaction_id
    from examples
),

named_feedback as (
    select
        example_id,
        side,
        unnest(feedback_ids) as feedback_id
    from examples
),

facts as (
    select
        'client' as section,
        client_id as fact,
        example_id,
        side
    from examples
    union all
    select
        'label' as section,
        label as fact,
        example_id,
        side
    from examples
    union all
    select
        'day' as section,
        day as fact,
        example_id,
        side
    from examples
    union all
    select
        'source' as section,
        interactions.source as fact,
        named.example_id,
        named.side
    from named_interactions as named
    inner join raw.interactions as interactions using (interaction_id)
    union all
    select
        'feedback' as section,
        feedback.kind as fact,
        named.example_id,
        named.side
    from named_feedback as named
    inner join raw.feedback as feedback using (feedback_id)
)

select
    section,
    fact,
    count(distinct example_id) filter (where side = 'train') as train,
    count(distinct example_id) filter (where side = 'validation') as validation,
    count(distinct example_id) filter (where side = 'holdout') as holdout
from facts
group by section, fact
order by section asc, count(distinct example_id) desc, fact asc
