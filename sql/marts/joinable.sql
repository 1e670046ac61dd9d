-- One row per line in quarantine that waits for lines of other files by its `$key`, if its source,
-- workload and client have others of the same value. `group_number` numbers the values; `bytes` are
-- the line's. Values of which all lines were joined in vain are left out: their reasons name none
-- that is lacking. Reads raw.quarantine.

with

waiting as (
    select
        quarantine_id,
        workload_id,
        client_id,
        octet_length(content) as bytes,
        try(decode(content) ->> ('$.' || $key)) as call_id,
        regexp_matches(reason, 'expected the \w+ file$') as lacks_other
    from raw.quarantine
    where source = $source_name and starts_with(reason, 'the `' || $key || '`')
),

several as (
    select
        workload_id,
        client_id,
        call_id,
        row_number() over (order by workload_id, client_id, call_id) as group_number
    from waiting
    group by workload_id, client_id, call_id
    having count(*) > 1 and bool_or(lacks_other)
)

select
    waiting.quarantine_id,
    several.group_number,
    waiting.bytes
from waiting
inner join several using (workload_id, client_id, call_id)
order by several.group_number, waiting.quarantine_id
