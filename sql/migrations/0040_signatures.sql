-- Decisions are signed under rules that the chain has; `document` is what was signed with its
-- signature, or the rules. It names people, so it stands in raw.decision_words, under a salt, and
-- its digest is part of the link's content where there is one.
alter table raw.decision_chain add column document_digest varchar;

-- Since when this home has rules in its chain. A promotion that waits since before that says in its
-- parameters which file it is of; a later one can't.
create table raw.signing as
select current_timestamp as since;

-- Who started a turn by hand from which an evidence came.
create table raw.starters (
    evidence_digest varchar not null,
    flow_run_id varchar not null,
    started_by varchar not null,
    started_at timestamptz not null,
    primary key (evidence_digest, flow_run_id)
);
