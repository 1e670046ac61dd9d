-- One row: what a snapshot of the workload would hold, as digests. `rows_digest` changes with
-- anything in it, `holdout_digest` only with what is measured: the requests held out and their
-- references. Of the clusters of rows that are not independent of each other it has the number on
-- each side, and the most rows that one has on all sides together. Reads curated.examples and
-- temp.measured.

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

hashed as (
    select
        examples.example_id,
        examples.side,
        measured.measured_digest as measured,
        md5(to_json({
            'client_id': examples.client_id,
            'logged_at': epoch_us(examples.logged_at),
            'group_id': examples.group_id,
            'cluster': named.cluster_name,
            'side': examples.side,
            'label': examples.label,
            'language': examples.language,
            'logged': case when examples.side = 'holdout' then examples.logged_answer end,
            'weight': examples.weight,
            'interaction_ids': examples.interaction_ids,
            'feedback_ids': examples.feedback_ids
        })::varchar) as origin
    from curated.examples as examples
    inner join temp.measured as measured using (example_id)
    inner join named
        on
            examples.side = named.side
            and coalesce(examples.cluster_id, examples.group_id) = named.unit_id
    where examples.workload_id = $workload_id
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
