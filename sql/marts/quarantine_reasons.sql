-- One row per kind of reason why lines of a file went to quarantine at $now, the most frequent
-- first: reasons that differ only in numbers and quoted values count as one. The example is the
-- first of the lines, with the beginning of its content. Reads raw.quarantine.

with

refused as (
    select
        path,
        line,
        reason,
        array_slice(content, 1, $most_bytes) as beginning,
        regexp_replace(reason, '"[^"]*"?|0x[0-9a-f]+|[0-9][0-9.]*', '_', 'g') as shape
    from raw.quarantine
    where file_digest = $digest and source = $source_name and quarantined_at = $now
)

select
    min_by(reason, line) as reason,
    count(*) as line_count,
    min_by(path, line) as path,
    min(line) as line,
    min_by(beginning, line) as beginning
from refused
group by shape
order by line_count desc, line asc, reason asc
limit $most
