-- One row per word that a person gave on an evidence, the oldest first. Reads raw.decisions.

select
    decision,
    approver,
    comment,
    decided_at
from raw.decisions
where evidence_digest = $evidence
order by decided_at, decision
