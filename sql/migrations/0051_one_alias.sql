-- A change of a workload's champion is one call of MLflow between two rows: `intended`, then `done`
-- or `undone`. Older homes noted each step between them; of those rows the version that was
-- registered goes to `intended`, and the rest says nothing that the two ends do not. `previous`
-- is no longer noted: it follows from the promotions before it.
--
-- Append-only. Every row says all that is needed to carry the change out again or to undo it.
-- `version`, `evidence_digest` and `adapter_key` are those of the version that becomes champion
-- (`version` is null in changes that an older home began before it had registered it);
-- `champion_before` and `adapter_before` are the champion's before the change, null where there was
-- none. `asked_by` and `reason` are a person's; `said` is why the change ended as it did.
create temporary table older_champion_journal as
select
    workload_id,
    number,
    step,
    kind,
    evidence_digest,
    adapter_key,
    max(version) over (partition by workload_id, number) as version,
    champion_before,
    adapter_before,
    asked_by,
    reason,
    said,
    noted_at
from raw.champion_journal
qualify step in ('intended', 'done', 'undone');

drop table raw.champion_journal;

create table raw.champion_journal (
    workload_id varchar not null,
    number integer not null,
    step varchar not null check (step in ('intended', 'done', 'undone')),
    kind varchar not null check (kind in ('promotion', 'rollback')),
    evidence_digest varchar not null,
    adapter_key varchar not null,
    version varchar,
    champion_before varchar,
    adapter_before varchar,
    asked_by varchar not null,
    reason varchar not null,
    said varchar not null,
    noted_at timestamptz not null,
    primary key (workload_id, number, step)
);

insert into raw.champion_journal by name
select
    workload_id,
    number,
    step,
    kind,
    evidence_digest,
    adapter_key,
    version,
    champion_before,
    adapter_before,
    asked_by,
    reason,
    said,
    noted_at
from older_champion_journal
order by workload_id, number, noted_at;

drop table older_champion_journal;
