-- One row: the digests of the workload's pairs and labels, which change with anything in them, and
-- how many there are. Reads curated.preferences and curated.labels.

with

pairs as (
    select
        count(*) as pairs,
        md5(coalesce(string_agg(md5(to_json({
            'preference_id': preference_id,
            'source': source,
            'messages': messages,
            'tools': tools,
            'chosen': chosen,
            'rejected': rejected,
            'weight': weight,
            'interaction_ids': interaction_ids,
            'feedback_ids': feedback_ids
        })::varchar), '' order by preference_id), '')) as pairs_digest
    from curated.preferences
    where workload_id = $workload_id
),

labels as (
    select
        count(*) as labels,
        md5(coalesce(string_agg(md5(to_json({
            'label_id': label_id,
            'messages': messages,
            'tools': tools,
            'answer': answer,
            'is_good': is_good,
            'weight': weight,
            'interaction_ids': interaction_ids,
            'feedback_ids': feedback_ids
        })::varchar), '' order by label_id), '')) as labels_digest
    from curated.labels
    where workload_id = $workload_id
)

select
    pairs.pairs_digest,
    labels.labels_digest,
    pairs.pairs,
    labels.labels
from pairs
cross join labels
