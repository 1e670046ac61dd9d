-- One row per interaction of the workload that is curated: those with feedback, and of the others
-- the ones with the lowest hashes of their ids, $at_most in all unless more have feedback. So
-- growth replaces as few rows as it must. Whoever's feedback it is: a row too many does no harm.
-- But an id on more than a third of the rows (and on more than 20) is an application's, not that of
-- a conversation: one signal on it would be feedback on all of them. Nor is an id of a response on
-- more than 20 rows one's own: an engine may draw it from few numbers; and one of $anonymous names
-- nothing. Reads raw.interactions and raw.feedback.

with

targets as (
    select
        unnest([
            response_id,
            conversation_id,
            target_id,
            coalesce(record, payload) ->> '$.value.chosen',
            coalesce(record, payload) ->> '$.value.rejected',
            coalesce(record, payload) ->> '$.value'
        ]) as target_id
    from raw.feedback
),

logged as (
    select
        interaction_id,
        unnest([true, false, false]) as is_response,
        unnest(json_extract_string(coalesce(record, payload), [
            '$.response.id', '$.conversation_id', '$.trace_id'
        ])) as target_id
    from raw.interactions
    where workload_id = $workload_id
),

named as (
    select distinct
        logged.interaction_id,
        logged.is_response,
        logged.target_id
    from logged
    semi join targets using (target_id)
    where not list_contains($anonymous::varchar[], lower(trim(logged.target_id)))
),

own_ids as (
    select
        is_response,
        target_id
    from named
    group by is_response, target_id
    having
        count(*) <= 20
        or (
            not is_response
            and 3 * count(*) <= (
                select count(*) from raw.interactions
                where workload_id = $workload_id
            )
        )
),

vouched as (
    select distinct named.interaction_id
    from named
    semi join own_ids using (is_response, target_id)
)

select interactions.interaction_id
from raw.interactions as interactions
left join vouched using (interaction_id)
where interactions.workload_id = $workload_id
qualify
    vouched.interaction_id is not null
    or row_number() over (
        order by
            vouched.interaction_id is not null desc,
            md5(interactions.interaction_id) asc,
            interactions.interaction_id asc
    ) <= $at_most
