-- One row: what a snapshot of the workload would hold, as digests. `rows_digest` changes with
-- anything in it, `holdout_digest` only with what is measured: the requests held out and their
-- references. Reads curated.examples.

with

hashed as (
    select
        example_id,
        side,
        md5(to_json({
            'example_id': example_id,
            'messages': messages,
            'tools': tools,
            'answer': answer,
            'acceptable': acceptable
        })::varchar) as measured,
        md5(to_json({
            'client_id': client_id,
            'logged_at': epoch_us(logged_at),
            'group_id': group_id,
            'side': side,
            'label': label,
            'language': language,
            'logged': case when side = 'holdout' then logged_answer end,
            'weight': weight,
            'interaction_ids': interaction_ids,
            'feedback_ids': feedback_ids
        })::varchar) as origin
    from curated.examples
    where workload_id = $workload_id
)

select
    md5(coalesce(string_agg(measured || origin, '' order by example_id), '')) as rows_digest,
    md5(coalesce(
        string_agg(measured, '' order by example_id) filter (where side = 'holdout'), ''
    )) as holdout_digest,
    count(*) filter (where side = 'train') as train_rows,
    count(*) filter (where side = 'validation') as validation_rows,
    count(*) filter (where side = 'holdout') as holdout_rows
from hashed
