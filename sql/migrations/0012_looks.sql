-- Append-only: each comparison of a challenger that the gate has made on a workload's holdout, with
-- the number that it has among those on largely the same requests. The share of alpha that it may
-- spend follows from the number, so that a comparison which is made again spends nothing more.
create table raw.looks (
    workload_id varchar not null,
    challenger_scorecard varchar not null,
    opponent_scorecard varchar not null,
    metric varchar not null,
    holdout_version varchar not null,
    requests bigint not null,
    number integer not null,
    looked_at timestamptz not null,
    primary key (workload_id, challenger_scorecard, opponent_scorecard, metric)
);
