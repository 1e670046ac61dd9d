-- Append-only: what a change of a workload's champion set out to do, and each step of it once it
-- was done. Every row says all that is needed to finish the change or to undo it. A change without
-- its last step (`done`, `undone`) was interrupted, and is settled by whoever comes next.
--
-- `version`, `evidence_digest` and `adapter_key` are of the version that becomes champion
-- (`version` is null until it is registered); `champion_before`, `adapter_before` and
-- `previous_before` say how all was before, null where there was none; `previous_after` is where
-- the alias `previous` is put. `asked_by` and `reason` are a person's; `said` is why it ended so.
create table raw.champion_journal (
    workload_id varchar not null,
    number integer not null,
    step varchar not null check (
        step in ('intended', 'registered', 'previous_moved', 'champion_moved', 'done', 'undone')
    ),
    kind varchar not null check (kind in ('promotion', 'rollback')),
    evidence_digest varchar not null,
    adapter_key varchar not null,
    version varchar,
    champion_before varchar,
    adapter_before varchar,
    previous_before varchar,
    previous_after varchar,
    asked_by varchar not null,
    reason varchar not null,
    said varchar not null,
    noted_at timestamptz not null,
    primary key (workload_id, number, step)
);
