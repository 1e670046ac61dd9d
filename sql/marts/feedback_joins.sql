-- One row per workload and kind of the feedback that was collected: how many events, how many of
-- them name a logged response or conversation of their client, how many only one of another client,
-- and from which files they are. Feedback belongs to the workload of what it names, or else to its
-- own. Reads raw.feedback, raw.interactions and raw.files.

with

files as (
    select
        digest as file_digest,
        min(path) as file_path
    from raw.files
    group by digest
),

fields as (
    select
        workload_id,
        client_id,
        json_extract_string(
            coalesce(record, payload), ['$.response.id', '$.conversation_id', '$.trace_id']
        ) as field
    from raw.interactions
),

targets as (
    select distinct
        workload_id,
        client_id,
        unnest(['response', 'conversation', 'trace']) as aim,
        unnest(field) as target_id
    from fields
),

aimed as (
    select
        feedback_id,
        workload_id,
        client_id,
        kind,
        file_path,
        coalesce(response_id, conversation_id, target_id) as target_id,
        case
            when response_id is not null then ['response']
            when conversation_id is not null then ['conversation']
            else ['response', 'conversation', 'trace']
        end as aims
    from raw.feedback
    inner join files using (file_digest)
),

joined as (
    select
        aimed.feedback_id,
        aimed.kind,
        aimed.file_path,
        coalesce(
            max(targets.workload_id) filter (targets.client_id = aimed.client_id),
            max(targets.workload_id),
            aimed.workload_id
        ) as workload_id,
        coalesce(bool_or(targets.client_id = aimed.client_id), false) as is_joined,
        count(targets.target_id) > 0 as is_known
    from aimed
    left join targets
        on
            aimed.target_id = targets.target_id
            and list_contains(aimed.aims, targets.aim)
    group by aimed.feedback_id, aimed.kind, aimed.file_path, aimed.workload_id
)

select
    workload_id,
    kind,
    count(*) as events,
    count(*) filter (is_joined) as joined,
    count(*) filter (is_known and not is_joined) as of_other_clients,
    list_sort(list(distinct file_path)) as paths
from joined
group by workload_id, kind
order by workload_id asc, events desc, kind asc
