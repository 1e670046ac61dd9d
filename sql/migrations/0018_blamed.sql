-- Append-only: what a rejection blames. `decision` is its place in the chain of decisions; `kind`
-- is request (`name` is an example's id), tool or client (`name` is that of the slice).
-- `is_learned` tells that the challenger was trained on the request: then it is held until a person
-- has judged it, or released it.
create table curated.blamed (
    decision bigint not null,
    workload_id varchar not null,
    kind varchar not null check (kind in ('request', 'tool', 'client')),
    name varchar not null,
    is_learned boolean not null,
    blamed_at timestamptz not null,
    primary key (decision, kind, name)
);
