-- Append-only: what became of each canary, a row a step. `intended`: its order (`record`), before
-- the version's tags and alias are set; `started`: they are set; `undecided`: the deadline came,
-- and people were told; `ended`: why (`outcome`, `note`), with the verdict and the evidence at each
-- step (`record`); `settled`: aliases and tags are as the outcome says. A canary without its last
-- row is under way, or was interrupted, and is finished by whoever comes next. It has no person's
-- words: those are in the chain of decisions.
create table raw.rollouts (
    rollout_id varchar not null,
    workload_id varchar not null,
    step varchar not null check (step in ('intended', 'started', 'undecided', 'ended', 'settled')),
    version varchar not null,
    champion varchar not null,
    evidence_digest varchar not null,
    adapter_key varchar not null,
    outcome varchar not null,
    note varchar not null,
    record json not null,
    noted_at timestamptz not null,
    primary key (rollout_id, step)
);

-- The canary that a change of champion ended; null in changes without one. A `rollback` with it
-- left `version` champion: `champion_before` answered a share beside it.
alter table raw.champion_journal add column rollout_id varchar;
