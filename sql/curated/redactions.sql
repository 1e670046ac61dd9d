-- One row per kind of value that redaction replaced in the workload's accepted interactions:
-- in how many, how many distinct values a conversation, how often. Reads redacted, which curate
-- hands over, one row per interaction and kind.

select
    $workload_id::varchar as workload_id,
    kind,
    count(*) as interactions,
    sum(distinct_values)::bigint as distinct_values,
    sum(replacements)::bigint as replacements
from redacted
group by kind
