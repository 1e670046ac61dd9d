-- What was erased stays erased: digests of the ids that loading must not bring back, what was made
-- from erased rows, and who asked when. Digests are SHA-256 of the key, which stays in this file,
-- and the value: without the key nobody can tell whether a guess is right.

create table raw.erasure_key (key varchar not null);

-- `subject_digest` is of the subject's id; `scope` is the JSON text of what it was narrowed to.
create table raw.erasures (
    certificate_id varchar primary key,
    subject_digest varchar not null,
    scope varchar not null,
    begun_at timestamptz not null,
    finished_at timestamptz
);

-- `kind` is interactions or feedback (of their ids), lines (of quarantined bytes) or texts.
create table raw.erased (
    kind varchar not null,
    digest varchar not null,
    certificate_id varchar not null
);

create table raw.erasure_counts (
    certificate_id varchar not null,
    place varchar not null,
    rows bigint not null
);

-- Outputs that were made from erased rows, by the key of their folder: snapshots, the adapters
-- trained on them, scorecards that hold requests, evidence. Nothing that names one is approved.
create table raw.tainted (
    kind varchar not null check (kind in ('snapshot', 'adapter', 'scorecard', 'evidence')),
    workload_id varchar not null,
    key varchar not null,
    certificate_id varchar not null,
    primary key (kind, workload_id, key, certificate_id)
);
