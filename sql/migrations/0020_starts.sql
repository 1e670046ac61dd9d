-- Append-only: every time that somebody or something thought of starting a turn, what came of it,
-- and why. `flow_run_id` is that of the turn, once it runs.
create table raw.starts (
    start_id varchar primary key,
    workload_id varchar not null,
    cause varchar not null check (cause in ('trigger', 'schedule', 'stale', 'person')),
    started boolean not null,
    reason varchar not null,
    signs json not null,
    looked_at timestamptz not null,
    flow_run_id varchar
);
