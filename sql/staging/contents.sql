-- One row per interaction of the workload under curation: the digest of all that its judgement
-- reads, and the correction in it, null for none. Each value is hashed by itself, so that none can
-- pass for another. Reads candidates, a view of staging/candidates, and staging.answers.

select
    candidates.interaction_id,
    answers.correction_id,
    md5(concat_ws(
        ' ',
        candidates.workload_id,
        candidates.example_id,
        epoch_us(candidates.logged_at),
        candidates.messages_digest,
        candidates.tools_digest,
        coalesce(candidates.message_digest, '-'),
        coalesce(md5(candidates.finish_reason), '-'),
        candidates.is_corrected,
        coalesce(candidates.acceptable_digest, '-'),
        coalesce(md5(candidates.conversation_id), '-'),
        coalesce(md5(candidates.user_id), '-'),
        coalesce(candidates.logged_message_digest, '-'),
        case
            when candidates.released = [] then md5('[]')
            else md5(candidates.released::varchar)
        end
    )) as content_digest
from candidates
left join staging.answers as answers using (interaction_id)
