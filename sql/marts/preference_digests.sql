-- One row: the digests of the workload's pairs and labels, which change with anything in them, how
-- many there are, and in how many pairs the longer answer won. Reads curated.preferences and
-- curated.labels.

with

pairs as (
    select
        count(*) as pairs,
        count(*) filter (where chosen_length > rejected_length) as longer_won,
        count(*) filter (where chosen_length < rejected_length) as shorter_won,
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
    pairs.longer_won,
    pairs.shorter_won,
    labels.labels
from pairs
cross join labels
