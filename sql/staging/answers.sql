-- One row per interaction of the workload under curation, with the answer to learn from: the
-- newest correction, else the logged one. Feedback counts only for the client that logged the
-- response, so that nobody corrects another's traffic. Reads staging.interactions and
-- staging.feedback.

with

corrections as (
    select
        client_id,
        response_id,
        feedback_id,
        value::varchar as message,
        given_at
    from staging.feedback
    where kind = 'correction'
    qualify row_number() over (
        partition by client_id, response_id
        order by given_at desc, feedback_id asc
    ) = 1
),

thumbs as (
    select
        client_id,
        response_id,
        list(feedback_id) as feedback_ids,
        count(*) filter (where (value ->> '$') = 'up') as up,
        count(*) filter (where (value ->> '$') = 'down') as down
    from staging.feedback
    where kind = 'thumb'
    group by client_id, response_id
)

select
    interactions.interaction_id,
    coalesce(corrections.message, interactions.message) as message,
    corrections.message is not null as is_corrected,
    coalesce(corrections.given_at, interactions.logged_at) as answered_at,
    case when corrections.message is null then interactions.finish_reason end as finish_reason,
    coalesce(thumbs.up, 0) as thumbs_up,
    coalesce(thumbs.down, 0) as thumbs_down,
    list_sort(
        coalesce(thumbs.feedback_ids, [])
        || case when corrections.feedback_id is null then [] else [corrections.feedback_id] end
    ) as feedback_ids
from staging.interactions as interactions
left join corrections using (client_id, response_id)
left join thumbs using (client_id, response_id)
