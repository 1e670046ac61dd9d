-- One row per erasure: that of the certificate, or those of the subject, the oldest first.
-- Reads raw.erasures.

select
    certificate_id,
    subject_digest,
    scope,
    begun_at,
    finished_at
from raw.erasures
where
    certificate_id = $certificate_id
    or subject_digest = $subject_digest
order by begun_at, certificate_id
