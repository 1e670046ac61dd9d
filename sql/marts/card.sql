-- One row per figure of a snapshot's card: under its section, how many of the workload's examples
-- on each side it is true of. An example of several sources, or with several kinds of feedback,
-- counts under each. Rows replayed from other sets are of no client, and neither they nor logs
-- without times are of a day. Reads curated.examples, raw.interactions and raw.feedback.

with

examples as (
    select
        example_id,
        side,
        client_id,
        label,
        interaction_ids,
        feedback_ids,
        len(interaction_ids) = 0 as is_replayed,
        case when epoch(logged_at) > 0 then strftime(logged_at, '%Y-%m-%d') end as day
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

-- An example has one client, label and day, so its id need not be kept to count it once.
counts as (
    select
        'client' as section,
        client_id as fact,
        side,
        count(*) as examples
    from examples
    where not is_replayed
    group by client_id, side
    union all
    select
        'label' as section,
        label as fact,
        side,
        count(*) as examples
    from examples
    group by label, side
    union all
    select
        'day' as section,
        day as fact,
        side,
        count(*) as examples
    from examples
    where day is not null
    group by day, side
    union all
    select
        'source' as section,
        'replay' as fact,
        side,
        count(*) as examples
    from examples
    where is_replayed
    group by side
    union all
    select
        'source' as section,
        interactions.source as fact,
        named.side,
        count(distinct named.example_id) as examples
    from named_interactions as named
    inner join raw.interactions as interactions using (interaction_id)
    group by interactions.source, named.side
    union all
    select
        'feedback' as section,
        feedback.kind as fact,
        named.side,
        count(distinct named.example_id) as examples
    from named_feedback as named
    inner join raw.feedback as feedback using (feedback_id)
    group by feedback.kind, named.side
)

select
    section,
    fact,
    coalesce(sum(examples) filter (where side = 'train'), 0)::bigint as train,
    coalesce(sum(examples) filter (where side = 'validation'), 0)::bigint as validation,
    coalesce(sum(examples) filter (where side = 'holdout'), 0)::bigint as holdout
from counts
group by section, fact
order by section asc, sum(examples) desc, fact asc
