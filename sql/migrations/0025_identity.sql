-- What tells whether a record that came later is one of those that are here, in other words: see
-- components/identity.py. `content_hash` is DuckDB's hash of the record's text, null where it was
-- not computed: equal hashes spare a comparison, and nothing else rests on them, since DuckDB may
-- change its hash. `likeness` is of what the record says, whatever the order of its keys.

alter table raw.interactions add column content_hash ubigint;
alter table raw.interactions add column likeness ubigint;

update raw.interactions
set likeness = said.likeness
from (
    select
        interaction_id,
        timestamp,
        md5_number_lower(concat_ws(
            chr(10),
            field[1], field[2],
            case when starts_with(field[3], '"') then strlen(field[3]) || left(field[3], 80) end,
            case when starts_with(field[4], '"') then strlen(field[4]) || left(field[4], 80) end
        )) as likeness
    from (
        select
            interaction_id,
            timestamp,
            json_extract(coalesce(record, payload), [
                '$.workload_id', '$.client_id', '$.request.messages[#-1].content',
                '$.response.choices[0].message.content'
            ]) as field
        from raw.interactions
    ) as texts
) as said
where
    interactions.interaction_id = said.interaction_id
    and interactions.timestamp = said.timestamp;
