-- One row per interaction of the workload under curation whose answer somebody corrected, liked or
-- disliked, which are few: the newest correction that counts, which is then learned from, and
-- what people made of the answer. Feedback counts only for the client that logged the response, so
-- that nobody corrects another's traffic. Reads staging.interactions, staging.signals,
-- staging.regards and staging.unused (feedback that is held back or can't be read).

with

counted as (
    select
        feedback_id,
        value as message,
        given_at,
        stated_at,
        unnest(interaction_ids) as interaction_id
    from staging.signals
    anti join staging.unused using (feedback_id)
    where kind = 'correction'
),

corrections as (
    select *
    from counted
    qualify row_number() over (
        partition by interaction_id
        order by given_at desc, stated_at desc, feedback_id asc
    ) = 1
)

select
    interactions.interaction_id,
    regards.dislike,
    corrections.feedback_id as correction_id,
    corrections.message as correction,
    corrections.message is not null as is_corrected,
    coalesce(corrections.given_at, interactions.logged_at) as answered_at,
    if(corrections.message is null, coalesce(regards.regard, 0), 1) as regard,
    list_sort(
        coalesce(regards.feedback_ids, [])
        || case when corrections.feedback_id is null then [] else [corrections.feedback_id] end
    ) as feedback_ids
from staging.interactions as interactions
left join corrections using (interaction_id)
left join staging.regards as regards using (interaction_id)
where corrections.feedback_id is not null or regards.interaction_id is not null
