-- One row per workload and kind of the feedback that was collected: how many events, how many of
-- them name a logged response or conversation of their client (and, if they are feedback lines, of
-- the workload that they name), how many only one of another client or workload, and from which
-- files they are. Each is counted in the workload of what it names, or else in its own. Reads
-- raw.feedback, raw.interactions and raw.files.

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
        source = 'feedback' as is_of_its_workload,
        coalesce(response_id, conversation_id, target_id) as target_id,
        case
            when response_id is not null then ['response']
            when conversation_id is not null then ['conversation']
            else ['response', 'conversation', 'trace']
        end as aims
    from raw.feedback
    inner join files using (file_digest)
),

known as (
    select
        aimed.feedback_id,
        targets.workload_id,
        targets.target_id,
        targets.client_id = aimed.client_id
        and (targets.workload_id = aimed.workload_id or not aimed.is_of_its_workload) as is_joined
    from aimed
    inner join targets
        on
            aimed.target_id = targets.target_id
            and list_contains(aimed.aims, targets.aim)
),

joined as (
    select
        aimed.feedback_id,
        aimed.kind,
        aimed.file_path,
        coalesce(
            max(known.workload_id) filter (known.is_joined),
            max(known.workload_id),
            aimed.workload_id
        ) as workload_id,
        coalesce(bool_or(known.is_joined), false) as is_joined,
        count(known.target_id) > 0 as is_known
    from aimed
    left join known using (feedback_id)
    group by aimed.feedback_id, aimed.kind, aimed.file_path, aimed.workload_id
)

select
    workload_id,
    kind,
    count(*) as events,
    count(*) filter (is_joined) as joined,
    count(*) filter (is_known and not is_joined) as named_otherwise,
    list_sort(list(distinct file_path)) as paths
from joined
group by workload_id, kind
order by workload_id asc, events desc, kind asc
