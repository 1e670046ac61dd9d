-- One row per example on the training side of the workload, of the `rows` that follow the id
-- `after`: what is counted of it against a budget of tokens. Reads curated.examples.

select
    example_id,
    messages,
    tools,
    answer
from curated.examples
where workload_id = $workload_id and side = 'train' and example_id > $after
order by example_id
limit $rows
