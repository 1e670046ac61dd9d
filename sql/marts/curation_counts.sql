-- One row per figure of the workload's newest curation and per value that it is counted by:
-- totals, rows per side, requests per verdict, findings per rule and disposition that dropped
-- nothing, replacements per kind, and unjudgeable rows per error and place.
-- Reads staging.interactions, staging.feedback, curated.examples, curated.fates,
-- curated.redactions, curated.verdicts, marts.verdicts and marts.rules.

with

figures as (
    select
        'total' as figure,
        'interactions' as counted,
        count(*) as number
    from staging.interactions
    union all
    select
        'total' as figure,
        'feedback_waiting' as counted,
        count(*) as number
    from staging.feedback
    where is_waiting
    union all
    select
        'total' as figure,
        'feedback_held_back' as counted,
        count(*) as number
    from curated.fates
    where workload_id = $workload_id and fate in ('brigade', 'flood', 'over_cap')
    union all
    select
        'total' as figure,
        'feedback_ambiguous' as counted,
        count(*) as number
    from curated.fates
    where workload_id = $workload_id and fate = 'different_prompts'
    union all
    select
        'side' as figure,
        side as counted,
        count(*) as number
    from curated.examples
    where workload_id = $workload_id
    group by all
    union all
    select
        'verdict' as figure,
        verdict as counted,
        interactions as number
    from marts.verdicts
    where workload_id = $workload_id
    union all
    select
        'flagged' as figure,
        rule || ' ' || disposition as counted,
        interactions as number
    from marts.rules
    where workload_id = $workload_id and disposition != 'drop'
    union all
    select
        'redaction' as figure,
        kind as counted,
        replacements as number
    from curated.redactions
    where workload_id = $workload_id
    union all
    select
        'unjudgeable' as figure,
        mark as counted,
        count(*) as number
    from curated.verdicts
    where workload_id = $workload_id and objection = $unjudgeable
    group by all
)

select
    figure,
    counted,
    number
from figures
order by figure asc, counted asc
