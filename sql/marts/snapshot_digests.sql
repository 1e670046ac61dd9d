-- One row: what a snapshot of the workload would hold, as digests. `rows_digest` changes with
-- anything in it, `holdout_digest` only with what is measured: the requests held out and their
-- references. Of the clusters of rows that are not independent of each other it has the number on
-- each side, and the most rows that one has on all sides together. Reads curated.examples.

with

named as (
    select
        side,
        coalesce(cluster_id, group_id) as unit_id,
        min(example_id) as cluster_name
    from curated.examples
    where workload_id = $workload_id
    group by side, coalesce(cluster_id, group_id)
),

clusters as (
    select
        count(*) filter (where side = 'train') as train_clusters,
        count(*) filter (where side = 'validation') as validation_clusters,
        count(*) filter (where side = 'holdout') as holdout_clusters
    from named
),

sized as (
    select count(*) as cluster_rows
    from curated.examples
    where workload_id = $workload_id and cluster_id is not null
    group by cluster_id
),

-- Texts are hashed first, since what follows would carry them through its join.
measured as (
    select
        * exclude (messages, tools, answer, acceptable, logged_answer),
        coalesce(cluster_id, group_id) as unit_id,
        case when side = 'holdout' then logged_answer end as tested_answer,
        md5(to_json({
            'example_id': example_id,
            'messages': messages,
            'tools': tools,
            'answer': answer,
            'acceptable': acceptable
        })::varchar) as measured
    from curated.examples
    where workload_id = $workload_id
),

hashed as (
    select
        measured.example_id,
        measured.side,
        measured.measured,
        md5(to_json({
            'client_id': measured.client_id,
            'logged_at': epoch_us(measured.logged_at),
            'group_id': measured.group_id,
            'cluster': named.cluster_name,
            'side': measured.side,
            'label': measured.label,
            'language': measured.language,
            'logged': measured.tested_answer,
            'weight': measured.weight,
            'interaction_ids': measured.interaction_ids,
            'feedback_ids': measured.feedback_ids
        })::varchar) as origin
    from measured
    inner join named using (side, unit_id)
),

digests as (
    select
        md5(coalesce(string_agg(measured || origin, '' order by example_id), '')) as rows_digest,
        md5(coalesce(
            string_agg(measured, '' order by example_id) filter (where side = 'holdout'), ''
        )) as holdout_digest,
        count(*) filter (where side = 'train') as train_rows,
        count(*) filter (where side = 'validation') as validation_rows,
        count(*) filter (where side = 'holdout') as holdout_rows
    from hashed
)

select
    digests.rows_digest,
    digests.holdout_digest,
    digests.train_rows,
    digests.validation_rows,
    digests.holdout_rows,
    clusters.train_clusters,
    clusters.validation_clusters,
    clusters.holdout_clusters,
    coalesce((select max(sized.cluster_rows) from sized), 1) as largest_cluster
from digests
cross join clusters
