-- The books: which outputs exist, and what people decided. Both are append-only.

create table raw.manifests (
    key varchar not null,
    kind varchar not null,
    workload_id varchar not null,
    path varchar not null,
    manifest json not null,
    recorded_at timestamptz not null,
    primary key (workload_id, kind, key)
);

create table raw.decisions (
    decision_id varchar primary key default uuid(),
    workload_id varchar not null,
    evidence_digest varchar not null,
    decision varchar not null check (decision in ('approve', 'reject')),
    approver varchar not null,
    comment varchar not null,
    flow_run_id varchar,
    decided_at timestamptz not null,
    model_version varchar
);
