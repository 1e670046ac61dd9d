-- One row per answer of a workload that got a thumb, down if the newest of most people's are, since
-- votes on one text are no independent ones; in order of the answers' times; all of a version, and
-- the newest of the one before it. Of a named actor only the vote on the first answer of either
-- counts: votes of one person in a row are not exchangeable with those of others. One with a name
-- of `$anonymous`, or the client's own, may be many people. Answers
-- that the gateway gave name their version; others are the version's from its promotion on, and its
-- predecessor's before. Answers of any further version count for neither, nor do feedback lines
-- that name another workload. A vote counts that came no later after its answer than the share
-- `$in_time` of those on the predecessor's had come by the promotion, once the answer is so old
-- `$now`: else votes would be compared of which the good ones, or the bad, have not come yet. All
-- count if fewer than `$fewest` had come by then. Reads raw.feedback and raw.interactions.

with

answers as (
    select
        client_id,
        json_extract_string(coalesce(record, payload), '$.response.id') as response_id,
        min(timestamp) as answered_at,
        max(json_extract_string(coalesce(record, payload), '$.served.version')) as version,
        max(json_extract_string(coalesce(record, payload), '$.served.arm')) as arm
    from raw.interactions
    where workload_id = $workload_id
    group by all
),

predecessor as (
    select arg_max(version, answered_at) as version -- null if nobody of ours served before
    from answers
    where answered_at < $since and arm = 'champion' and version <> $version
),

compared as (
    select
        answers.client_id,
        answers.response_id,
        answers.answered_at,
        coalesce(
            answers.version = $version, answers.arm is null and answers.answered_at >= $since
        ) as is_new
    from answers
    cross join predecessor
    where
        answers.version = $version
        or (answers.arm is null and answers.answered_at >= $since)
        or (
            answers.version is not distinct from predecessor.version
            and answers.answered_at < $since
        )
),

cast_votes as (
    select
        compared.client_id,
        compared.response_id,
        feedback.actor_id,
        feedback.feedback_id,
        feedback.timestamp as voted_at,
        compared.answered_at,
        compared.is_new,
        json_extract_string(
            coalesce(feedback.record, feedback.payload), '$.value'
        ) = 'down' as is_down
    from raw.feedback as feedback
    inner join compared
        on
            feedback.client_id = compared.client_id
            and coalesce(feedback.response_id, feedback.target_id) = compared.response_id
    where
        feedback.kind = 'thumb'
        and (feedback.workload_id = $workload_id or feedback.source <> 'feedback')
),

waited as (
    select quantile_disc(epoch(voted_at) - epoch(answered_at), $in_time) as seconds
    from cast_votes
    where not is_new and voted_at < $since
    having count(*) >= $fewest
),

votes as (
    select
        cast_votes.client_id,
        cast_votes.response_id,
        cast_votes.actor_id,
        cast_votes.answered_at,
        cast_votes.is_new,
        cast_votes.is_down
    from cast_votes
    left join waited on true
    where
        waited.seconds is null
        or (
            epoch(cast_votes.voted_at) - epoch(cast_votes.answered_at) <= waited.seconds
            and epoch(cast_votes.answered_at) + waited.seconds <= epoch($now)
        )
    qualify row_number() over (
        partition by cast_votes.client_id, cast_votes.response_id, cast_votes.actor_id
        order by cast_votes.voted_at desc, cast_votes.feedback_id asc
    ) = 1
),

spread as (
    select *
    from votes
    where is_down is not null -- null is a vote that was taken back
    qualify
        list_contains($anonymous, lower(trim(coalesce(actor_id, ''))))
        or actor_id = client_id
        or row_number() over (
            partition by client_id, actor_id, is_new order by answered_at asc, response_id asc
        ) = 1
),

judged as (
    select
        answered_at,
        is_new,
        client_id || ' ' || response_id as answer_id,
        2 * count(*) filter (where is_down) > count(*) as is_down
    from spread
    group by all
),

numbered as (
    select
        answer_id,
        answered_at,
        is_down,
        is_new,
        row_number() over (
            partition by is_new order by answered_at desc, answer_id desc
        ) as age
    from judged
)

select
    answer_id,
    is_down,
    is_new
from numbered
where is_new or age <= $most
order by answered_at, answer_id
