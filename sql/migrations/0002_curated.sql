-- What the rules made of each interaction, what is learned from, and who stands on which side.

create schema staging;

create schema curated;

create schema marts;

create table curated.verdicts (
    interaction_id varchar not null,
    workload_id varchar not null,
    objection varchar,
    representative_id varchar,
    judged_at timestamptz not null
);

create table curated.examples (
    example_id varchar not null,
    workload_id varchar not null,
    client_id varchar not null,
    logged_at timestamptz not null,
    split_by varchar not null,
    group_id varchar not null,
    side varchar not null,
    tool_names varchar[] not null,
    messages varchar not null,
    tools varchar not null,
    answer varchar not null,
    acceptable varchar,
    weight double not null,
    interaction_ids varchar[] not null,
    feedback_ids varchar[] not null
);

-- Append-only: a group's side is settled by the first snapshot that holds it, whatever the shares
-- are later.
create table curated.sides (
    workload_id varchar not null,
    group_id varchar not null,
    split_by varchar not null,
    side varchar not null check (side in ('train', 'holdout')),
    settled_at timestamptz not null,
    primary key (workload_id, group_id)
);

create view curated.holdout as
select
    workload_id,
    group_id,
    split_by,
    settled_at
from curated.sides
where side = 'holdout';

-- One row per workload and verdict, `kept` where no rule objected.
create view marts.verdicts as
select
    workload_id,
    coalesce(objection, 'kept') as verdict,
    count(*) as interactions
from curated.verdicts
group by all;
