-- A row's own side is settled beside those of its groups, validation is a side, and how a side was
-- drawn is kept; a holdout has numbered versions; what was tokenized is not tokenized again.

drop view curated.holdout;

-- Append-only. `group_id` names whatever ties rows together (a request, a conversation, a user, a
-- set of tools): its side is settled by the first snapshot that holds it. `stratum` and `draw_id`
-- tell among what it was drawn and with what; null where it was not drawn within a stratum.
create table curated.settled_sides (
    workload_id varchar not null,
    group_id varchar not null,
    split_by varchar not null,
    side varchar not null check (side in ('train', 'validation', 'holdout')),
    stratum varchar,
    draw_id varchar,
    settled_at timestamptz not null,
    primary key (workload_id, group_id)
);

insert into curated.settled_sides by name from curated.sides;

drop table curated.sides;

alter table curated.settled_sides rename to sides;

-- Where each interaction of a workload that may become an example stands, and what ties it to
-- others; `ties` begins with its own request and its group, a cluster is not among them.
create table curated.standings (
    interaction_id varchar not null,
    workload_id varchar not null,
    split_by varchar not null,
    ties varchar[] not null,
    cluster_id varchar,
    label varchar not null,
    side varchar not null,
    stratum varchar,
    draw_id varchar
);

-- One row per state that a workload's holdout was frozen in; a row never leaves this table.
create table curated.holdout_versions (
    workload_id varchar not null,
    version integer not null,
    digest varchar not null,
    requests bigint not null,
    added_requests bigint not null,
    frozen_at timestamptz not null,
    primary key (workload_id, version)
);

-- The version in which each request was first held out.
create table curated.holdout_rows (
    workload_id varchar not null,
    example_id varchar not null,
    since_version integer not null
);

create table curated.token_counts (
    tokenizer varchar not null,
    content varchar not null,
    tokens integer not null
);

alter table curated.examples add column label varchar default '';
