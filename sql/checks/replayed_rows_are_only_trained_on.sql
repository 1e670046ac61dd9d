-- Replayed rows of the workload that stand on another side than train, or ask what is asked there.

select
    replayed.example_id,
    replayed.side
from curated.examples as replayed
left join curated.examples as tested
    on
        replayed.workload_id = tested.workload_id
        and replayed.messages = tested.messages
        and replayed.tools = tested.tools
        and tested.side != 'train'
where
    replayed.workload_id = $workload_id
    and starts_with(replayed.example_id, 'replay-')
    and (replayed.side != 'train' or tested.example_id is not null)
