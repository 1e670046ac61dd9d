-- The rules that left out more of a workload, when it was last curated, than its file lets pass
-- unasked: how many interactions, of how many different requests.
create table curated.losses (
    workload_id varchar not null,
    rule varchar not null,
    interactions bigint not null,
    requests bigint not null,
    primary key (workload_id, rule)
);

-- Append-only: what a person let a rule leave out, as the share of the requests that it was then.
create table curated.released_losses (
    workload_id varchar not null,
    rule varchar not null,
    share double not null,
    released_by varchar not null,
    note varchar not null,
    released_at timestamptz not null
);
