-- One row per actor, target and kind of feedback (and name of an outcome, and pair of a choice) in
-- the workload under curation: people change their minds, and their newest word counts; raw keeps
-- all. Who takes a word back has none. Of words of one time (clocks that are ahead have the time of
-- the load, and many logs whole seconds) the newest is the one that its log has last. Reads
-- staging.given.

select
    feedback_id,
    client_id,
    response_id,
    conversation_id,
    trace_id,
    actor_id,
    kind,
    given_at,
    stated_at,
    value,
    scale,
    remark,
    is_waiting,
    workload_id
from staging.given
qualify row_number() over (
    partition by
        client_id,
        response_id,
        conversation_id,
        target_id,
        actor_id,
        kind,
        case kind
            when 'outcome' then value ->> '$.name'
            when 'choice' then list_sort([value ->> '$.chosen', value ->> '$.rejected'])::varchar
        end
    order by given_at desc, stated_at desc, loaded_at desc, line desc, feedback_id asc
) = 1
and json_type(value) != 'NULL'
