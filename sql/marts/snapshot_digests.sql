-- One row: what a snapshot of the workload would hold, as digests. `rows_digest` changes with
-- anything in it, `holdout_digest` only with what is measured: the requests held out and their
-- references. Of the clusters of rows that are not independent of each other it has the number on
-- each side, and the most rows that one has on all sides together. Reads temp.frozen and
-- curated.examples.

with

sized as (
    select count(*) as cluster_rows
    from curated.examples
    where workload_id = $workload_id and cluster_id is not null
    group by cluster_id
)

select
    md5(
        coalesce(string_agg(measured_digest || origin_digest, '' order by example_id), '')
    ) as rows_digest,
    md5(coalesce(
        string_agg(measured_digest, '' order by example_id) filter (where side = 'holdout'), ''
    )) as holdout_digest,
    count(*) filter (where side = 'train') as train_rows,
    count(*) filter (where side = 'validation') as validation_rows,
    count(*) filter (where side = 'holdout') as holdout_rows,
    count(*) filter (where side = 'train' and cluster_id = example_id) as train_clusters,
    count(*) filter (where side = 'validation' and cluster_id = example_id) as validation_clusters,
    count(*) filter (where side = 'holdout' and cluster_id = example_id) as holdout_clusters,
    coalesce((select max(sized.cluster_rows) from sized), 1) as largest_cluster
from temp.frozen
