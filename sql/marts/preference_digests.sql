-- One row: the digests of the workload's pairs and labels, which change with anything in them, how
-- many there are to learn, in how many of those pairs the longer answer won, and how many pairs are
-- held out. Reads curated.preferences and curated.labels.

with

pairs as (
    select
        count(*) filter (where side = 'train') as pairs,
        count(*) filter (where side = 'train' and chosen_length > rejected_length) as longer_won,
        count(*) filter (where side = 'train' and chosen_length < rejected_length) as shorter_won,
        count(*) filter (where side = 'holdout') as held_pairs,
        md5(coalesce(string_agg(md5(to_json({
            'preference_id': preference_id,
            'source': source,
            'side': side,
            'group_id': group_id,
            'cluster_id': cluster_id,
            'client_id': client_id,
            'language': language,
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
    pairs.held_pairs,
    labels.labels
from pairs
cross join labels
