-- One row per link of the chain of decisions, in its order, with the texts that were not erased and
-- their salts. Reads raw.decision_chain and raw.decision_words.

select
    chain.sequence,
    chain.kind,
    chain.workload_id,
    chain.evidence_digest,
    chain.flow_run_id,
    chain.attempt,
    chain.reason,
    chain.decided_at,
    chain.approver_digest,
    chain.comment_digest,
    chain.blame_digest,
    chain.before,
    chain.digest,
    approvers.text as approver,
    approvers.salt as approver_salt,
    remarks.text as comment,
    remarks.salt as comment_salt,
    charges.text as blame,
    charges.salt as blame_salt,
    documents.text as document,
    documents.salt as document_salt,
    coalesce(chain.body, '') as body,
    coalesce(chain.document_digest, '') as document_digest
from raw.decision_chain as chain
left join raw.decision_words as approvers
    on chain.sequence = approvers.sequence and approvers.field = 'approver'
left join raw.decision_words as remarks
    on chain.sequence = remarks.sequence and remarks.field = 'comment'
left join raw.decision_words as charges
    on chain.sequence = charges.sequence and charges.field = 'blame'
left join raw.decision_words as documents
    on chain.sequence = documents.sequence and documents.field = 'document'
where
    ($workload_id::varchar is null or chain.workload_id = $workload_id)
    and ($evidence::varchar is null or chain.evidence_digest = $evidence)
    and ($flow_run_id::varchar is null or chain.flow_run_id = $flow_run_id)
order by chain.sequence
