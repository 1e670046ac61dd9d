-- One row per tie (the name of a request, a conversation, a user, a set of tools that rows have
-- in common) that stands for erased interactions only. Reads curated.standings and
-- temp.erased_interactions.

with

named as (
    select
        interaction_id as id,
        unnest(ties) as tie
    from curated.standings
)

select named.tie
from named
left join temp.erased_interactions as erased on named.id = erased.id
group by named.tie
having bool_and(coalesce(erased.reason is not null, false))
order by named.tie
