-- One row: what a snapshot of the workload would hold, as digests. `rows_digest` changes with
-- anything in it, `holdout_digest` only with what is measured: the requests held out and their
-- references. Of the clusters of rows that are not independent of each other it has the number on
-- each side, and the most rows that one has on all sides together. Reads curated.examples.

with

clustered as (
    select
        *,
        coalesce(cluster_id, group_id) as unit_id,
        min(example_id) over (partition by side, coalesce(cluster_id, group_id)) as cluster_name,
        count(*) over (partition by cluster_id) as cluster_rows
    from curated.examples
    where workload_id = $workload_id
),

hashed as (
    select
        example_id,
        side,
        unit_id,
        case when cluster_id is not null then cluster_rows end as cluster_rows,
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
            'cluster': cluster_name,
            'side': side,
            'label': label,
            'language': language,
            'logged': case when side = 'holdout' then logged_answer end,
            'weight': weight,
            'interaction_ids': interaction_ids,
            'feedback_ids': feedback_ids
        })::varchar) as origin
    from clustered
)

select
    md5(coalesce(string_agg(measured || origin, '' order by example_id), '')) as rows_digest,
    md5(coalesce(
        string_agg(measured, '' order by example_id) filter (where side = 'holdout'), ''
    )) as holdout_digest,
    count(*) filter (where side = 'train') as train_rows,
    count(*) filter (where side = 'validation') as validation_rows,
    count(*) filter (where side = 'holdout') as holdout_rows,
    count(distinct unit_id) filter (where side = 'train') as train_clusters,
    count(distinct unit_id) filter (where side = 'validation') as validation_clusters,
    count(distinct unit_id) filter (where side = 'holdout') as holdout_clusters,
    coalesce(max(cluster_rows), 1) as largest_cluster
from hashed
