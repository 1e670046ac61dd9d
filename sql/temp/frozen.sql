-- One row per example of the workload: what a snapshot's key is made of, as digests, and how the
-- snapshot places it. `measured_digest` is of the request and its references; the last snapshot
-- left it for an example of the same content, so that texts which did not change are not read.
-- Another digest needs a migration that deletes curated.example_digests. `origin_digest` is of all
-- else. A cluster of rows that are not independent of each other is named by its smallest example
-- on the side, so that names of the holdout's don't change with what is trained on; `bytes` are
-- those of the texts. Reads curated.examples and curated.example_digests.

with

-- Not materialized: a million rows would be written to the disk.
placed as not materialized (
    select
        examples.* exclude (messages, tools, answer, acceptable, logged_answer),
        examples.rowid as place,
        digests.measured_digest,
        coalesce(examples.cluster_id, examples.group_id) as unit_id,
        case when examples.side = 'holdout' then examples.logged_answer end as tested_answer,
        strlen(examples.messages)
        + strlen(examples.tools)
        + strlen(examples.answer)
        + coalesce(strlen(examples.acceptable), 0)
        + coalesce(strlen(examples.logged_answer), 0) as bytes
    from curated.examples as examples
    left join curated.example_digests as digests using (workload_id, content_digest)
    where examples.workload_id = $workload_id
),

new as (
    select
        rowid as place,
        md5(to_json({
            'example_id': example_id,
            'messages': messages,
            'tools': tools,
            'answer': answer,
            'acceptable': acceptable
        })::varchar) as measured_digest
    from curated.examples
    where rowid in (
        select place from placed
        where measured_digest is null
    )
),

-- Most rows are clusters by themselves, and need no name.
named as (
    select
        side,
        unit_id,
        min(example_id) as cluster_id
    from placed
    group by side, unit_id
    having count(*) > 1
)

select
    placed.workload_id,
    placed.example_id,
    placed.side,
    placed.content_digest,
    placed.bytes,
    coalesce(placed.measured_digest, new.measured_digest) as measured_digest,
    coalesce(named.cluster_id, placed.example_id) as cluster_id,
    md5(to_json({
        'client_id': placed.client_id,
        'logged_at': epoch_us(placed.logged_at),
        'group_id': placed.group_id,
        'cluster': coalesce(named.cluster_id, placed.example_id),
        'side': placed.side,
        'label': placed.label,
        'language': placed.language,
        'logged': placed.tested_answer,
        'weight': placed.weight,
        'interaction_ids': placed.interaction_ids,
        'feedback_ids': placed.feedback_ids
    })::varchar) as origin_digest
from placed
left join new using (place)
left join named using (side, unit_id)
