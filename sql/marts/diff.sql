-- One row per example that two snapshots of a workload do not have alike: it is only in the later
-- one (in), only in the earlier one (out), or in both with something changed. Why it is out is what
-- the warehouse says of its interactions now. Reads curated.verdicts and the two snapshots' files,
-- whose names are the sides.

with

earlier as (
    select
        example_id,
        interaction_ids,
        feedback_ids,
        logged_at,
        weight,
        answer,
        acceptable,
        md5(messages || chr(10) || tools) as request,
        parse_filename(filename, true) as side
    from read_parquet($earlier, filename = true)
),

later as (
    select
        example_id,
        interaction_ids,
        feedback_ids,
        logged_at,
        weight,
        answer,
        acceptable,
        md5(messages || chr(10) || tools) as request,
        parse_filename(filename, true) as side
    from read_parquet($later, filename = true)
),

gone as (
    select
        example_id,
        unnest(interaction_ids) as interaction_id
    from earlier
    anti join later using (example_id)
),

-- Of several interactions, what is said of one that is kept, else of the first.
judged as (
    select
        gone.example_id,
        coalesce(
            max(
                case
                    when verdicts.interaction_id is not null and verdicts.objection is null
                        then 'kept now'
                end
            ),
            arg_min(verdicts.objection, gone.interaction_id),
            'no longer in the warehouse'
        ) as why
    from gone
    left join curated.verdicts as verdicts using (interaction_id)
    group by gone.example_id
),

out_rows as (
    select
        earlier.example_id,
        'out' as kind,
        judged.why,
        earlier.side as side_before,
        null as side_after
    from earlier
    inner join judged using (example_id)
),

newest as (
    select max(logged_at) as logged_at
    from earlier
),

in_rows as (
    select
        later.example_id,
        'in' as kind,
        if(
            later.logged_at > newest.logged_at,
            'logged since',
            'let in or loaded since'
        ) as why,
        null as side_before,
        later.side as side_after
    from later
    cross join newest
    anti join earlier using (example_id)
),

compared as (
    select
        example_id,
        earlier.side as side_before,
        later.side as side_after,
        concat_ws(
            ', ',
            case when earlier.side != later.side then 'side' end,
            case when earlier.request != later.request then 'request' end,
            case when earlier.answer != later.answer then 'answer' end,
            case
                when earlier.acceptable is distinct from later.acceptable
                    then 'acceptable values'
            end,
            case when earlier.weight != later.weight then 'weight' end,
            case when earlier.feedback_ids != later.feedback_ids then 'feedback' end,
            case when earlier.interaction_ids != later.interaction_ids then 'duplicates' end
        ) as why
    from earlier
    inner join later using (example_id)
),

changed_rows as (
    select
        example_id,
        'changed' as kind,
        why,
        side_before,
        side_after
    from compared
    where why != ''
)

select * from in_rows
union all
select * from out_rows
union all
select * from changed_rows
order by kind, why, example_id
