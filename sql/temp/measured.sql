-- One row per example of the workload: the digest of what is measured, the request and its
-- references, which the last snapshot left for an example of the same content: texts that did not
-- change are not read. Another digest needs a migration that deletes curated.example_digests.
-- Reads curated.examples and curated.example_digests.

with

kept as (
    select
        examples.workload_id,
        examples.example_id,
        examples.content_digest,
        digests.measured_digest
    from curated.examples as examples
    inner join curated.example_digests as digests using (workload_id, content_digest)
    where examples.workload_id = $workload_id
),

-- By place, so that other texts are not even decompressed.
new_places as (
    select examples.rowid as place
    from curated.examples as examples
    anti join kept using (example_id)
    where examples.workload_id = $workload_id
),

new as (
    select
        workload_id,
        example_id,
        content_digest,
        md5(to_json({
            'example_id': example_id,
            'messages': messages,
            'tools': tools,
            'answer': answer,
            'acceptable': acceptable
        })::varchar) as measured_digest
    from curated.examples
    where rowid in (select place from new_places)
)

from kept
union all
from new
