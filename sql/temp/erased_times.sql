-- One row per row of this load at whose time something was erased. Rows of this load have row ids
-- above $last_row and one of the $digests, which are from $lowest to $highest. Reads
-- raw.interactions, raw.erased and raw.erasure_key.

with

erased as (
    select digest
    from raw.erased
    where kind = 'times'
)

select
    interactions.rowid as row_id,
    interactions.payload,
    interactions.record
from raw.interactions as interactions
semi join erased
    on
        sha256((select key from raw.erasure_key) || epoch_us(interactions.timestamp)::varchar)
        = erased.digest
where
    interactions.rowid > $last_row
    and interactions.file_digest between $lowest and $highest
    and list_contains($digests, interactions.file_digest)
