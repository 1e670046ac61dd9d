-- One row per feedback of the month that retention exports, as raw has it.
-- Reads raw.feedback and temp.old_feedback.

select
    feedback.feedback_id,
    feedback.timestamp,
    feedback.workload_id,
    feedback.client_id,
    feedback.response_id,
    feedback.conversation_id,
    feedback.target_id,
    feedback.actor_id,
    feedback.kind,
    feedback.source,
    feedback.file_digest,
    feedback.line,
    feedback.payload,
    feedback.record
from raw.feedback as feedback
semi join temp.old_feedback as old
    on feedback.feedback_id = old.id and feedback.timestamp = old.timestamp and old.month = $month
order by feedback.timestamp, feedback.feedback_id
