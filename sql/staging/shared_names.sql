-- One row per request, conversation id and user id that several clients of the workload logged,
-- with the client that it was loaded from first. Reads staging.interactions.

with

owned as (
    select
        loaded_at,
        example_id,
        conversation_id,
        user_id,
        coalesce(party_id, client_id) as client_id
    from staging.interactions
),

owners as (
    select distinct client_id from owned
),

-- None where one client logs, which is known before any name is grouped.
shareable as materialized (
    select *
    from owned
    where (select count(*) from owners) > 1
),

named as (
    select
        client_id,
        loaded_at,
        'request' as name_kind,
        example_id as shared_name
    from shareable
    union all
    select
        client_id,
        loaded_at,
        'conversation' as name_kind,
        conversation_id as shared_name
    from shareable
    where conversation_id is not null
    union all
    select
        client_id,
        loaded_at,
        'user' as name_kind,
        user_id as shared_name
    from shareable
    where user_id is not null
),

firsts as (
    select
        name_kind,
        shared_name,
        client_id,
        min(loaded_at) as loaded_at
    from named
    group by name_kind, shared_name, client_id
),

-- Not a window over all names, most of which one client logs.
shared as (
    select
        name_kind,
        shared_name
    from firsts
    group by name_kind, shared_name
    having count(*) > 1
)

select
    name_kind,
    shared_name,
    client_id as first_client_id
from firsts
semi join shared using (name_kind, shared_name)
qualify row_number() over (
    partition by name_kind, shared_name
    order by loaded_at asc, client_id asc
) = 1
