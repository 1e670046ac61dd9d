-- Decisions as a chain. A row's digest is the SHA-256 of its content, a JSON object of its columns
-- in the order of their names, of which `before` is the digest of the row before: 64 zeros in the
-- first row. What people wrote stands apart, in raw.decision_words, under a salt for each text; the
-- row holds the SHA-256 of salt and text. So a text can be erased and the chain still holds, and
-- without the salt nobody can tell whether a guess at it is right.

create table raw.decision_chain (
    sequence bigint primary key,
    kind varchar not null,
    workload_id varchar not null,
    evidence_digest varchar not null,
    flow_run_id varchar not null,
    attempt integer not null,
    reason varchar not null,
    decided_at timestamptz not null,
    approver_digest varchar not null,
    comment_digest varchar not null,
    blame_digest varchar not null,
    before varchar not null,
    digest varchar not null
);

-- `field` is approver, comment or blame.
create table raw.decision_words (
    sequence bigint not null,
    field varchar not null,
    salt varchar not null,
    text varchar not null,
    primary key (sequence, field)
);

-- One row: the last link, so that a chain whose end was cut off is not a shorter one that holds.
create table raw.decision_head (
    sequence bigint not null,
    digest varchar not null
);

-- The last one-time code that was taken from each approver: neither it nor an older one is taken.
create table raw.approver_codes (
    approver varchar primary key,
    counter bigint not null,
    used_at timestamptz not null
);

create temporary table decided as
select
    row_number() over (order by decided_at, decision_id) as sequence,
    decision as kind,
    workload_id,
    evidence_digest,
    coalesce(flow_run_id, '') as flow_run_id,
    decided_at,
    approver,
    comment,
    replace(uuid()::varchar, '-', '') as approver_salt,
    replace(uuid()::varchar, '-', '') as comment_salt,
    replace(uuid()::varchar, '-', '') as blame_salt
from raw.decisions;

create temporary table linked as
with recursive

sealed as (
    select
        *,
        sha256(approver_salt || approver) as approver_digest,
        sha256(comment_salt || comment) as comment_digest,
        sha256(blame_salt) as blame_digest
    from decided
),

written as (
    select
        *,
        '{"approver_digest":"' || approver_digest || '","attempt":1,"before":"' as beginning,
        '","blame_digest":"' || blame_digest || '","comment_digest":"' || comment_digest
        || '","decided_at":"' || strftime(decided_at, '%Y-%m-%dT%H:%M:%S.%fZ')
        || '","evidence_digest":' || to_json(evidence_digest)::varchar
        || ',"flow_run_id":' || to_json(flow_run_id)::varchar
        || ',"kind":"' || kind || '","reason":"","sequence":' || sequence::varchar
        || ',"workload_id":' || to_json(workload_id)::varchar || '}' as ending
    from sealed
),

links as (
    select
        sequence,
        repeat('0', 64) as before,
        sha256(beginning || repeat('0', 64) || ending) as digest
    from written
    where sequence = 1
    union all
    select
        written.sequence,
        links.digest as before,
        sha256(written.beginning || links.digest || written.ending) as digest
    from links
    inner join written on links.sequence + 1 = written.sequence
)

select
    written.sequence,
    written.kind,
    written.workload_id,
    written.evidence_digest,
    written.flow_run_id,
    written.decided_at,
    written.approver,
    written.comment,
    written.approver_salt,
    written.comment_salt,
    written.blame_salt,
    written.approver_digest,
    written.comment_digest,
    written.blame_digest,
    links.before,
    links.digest
from written
inner join links using (sequence);

insert into raw.decision_chain by name
select
    sequence,
    kind,
    workload_id,
    evidence_digest,
    flow_run_id,
    1 as attempt,
    '' as reason,
    decided_at,
    approver_digest,
    comment_digest,
    blame_digest,
    before,
    digest
from linked;

insert into raw.decision_words by name
select
    sequence,
    'approver' as field,
    approver_salt as salt,
    approver as text
from linked
union all
select
    sequence,
    'comment' as field,
    comment_salt as salt,
    comment as text
from linked
union all
select
    sequence,
    'blame' as field,
    blame_salt as salt,
    '' as text
from linked;

insert into raw.decision_head by name
select
    sequence,
    digest
from linked
order by sequence desc
limit 1;

drop table decided;

drop table linked;

drop table raw.decisions;

-- One row per word for or against an evidence, as people look it up.
create view raw.decisions as
select
    chain.sequence,
    chain.workload_id,
    chain.evidence_digest,
    chain.kind as decision,
    approvers.text as approver,
    remarks.text as comment,
    chain.reason,
    chain.flow_run_id,
    chain.decided_at
from raw.decision_chain as chain
left join raw.decision_words as approvers
    on chain.sequence = approvers.sequence and approvers.field = 'approver'
left join raw.decision_words as remarks
    on chain.sequence = remarks.sequence and remarks.field = 'comment'
where chain.kind in ('approve', 'reject');
