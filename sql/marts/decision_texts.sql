-- One row per text of a decision in the workload, or in all of them (null).
-- Reads raw.decision_words and raw.decision_chain.

select
    words.sequence,
    words.field,
    words.text
from raw.decision_words as words
inner join raw.decision_chain as chain using (sequence)
where $workload_id::varchar is null or chain.workload_id = $workload_id
order by words.sequence, words.field
