-- One row per shape that records of a batch have: the keys of the payload, of its request and of
-- its response. Looked at is one record of so many. Reads lines, which collect hands over.

select distinct try(json_keys(content, ['$', '$.request', '$.response'])) as shape
from lines
where ordinal % $step = 0
