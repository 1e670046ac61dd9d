-- The schema of version 1.0; what later versions change of it is a migration of its own. Numbers
-- below 100 are those of versions 0.x, whose warehouses are not opened.

create schema staging;

create schema curated;

create schema marts;

-- What came in, as it came. A line is stored once, verbatim; what is in it is read out of it on
-- demand. A row keeps the canonical record beside the source's own payload where the two differ.
-- `content_hash` and `likeness` tell whether a record that came later is one of those here,
-- in other words: see components/store/record_identity.py. `content_hash` is DuckDB's hash of the
-- record's text, null where it was not computed: equal hashes spare a comparison, and nothing else
-- rests on them, since DuckDB may change its hash. `likeness` is of what the record says, whatever
-- the order of its keys.
create table raw.interactions (
    interaction_id varchar not null,
    timestamp timestamptz not null,
    workload_id varchar not null,
    client_id varchar not null,
    payload varchar not null,
    file_digest varchar not null,
    line bigint not null,
    source varchar default 'fivekey',
    record varchar,
    content_hash ubigint,
    likeness ubigint
);

-- A view, not generated columns: those are computed on insert, and loading takes twice as long.
create view raw.contents as
select
    interaction_id,
    json_extract(coalesce(record, payload), '$.request') as request,
    json_extract(coalesce(record, payload), '$.response') as response,
    json_merge_patch(
        coalesce(record, payload)::json,
        '{
            "timestamp": null,
            "workload_id": null,
            "client_id": null,
            "request": null,
            "response": null
        }'::json
    ) as extra
from raw.interactions;

create table raw.feedback (
    feedback_id varchar not null,
    timestamp timestamptz not null,
    workload_id varchar not null,
    client_id varchar not null,
    response_id varchar,
    actor_id varchar not null,
    kind varchar not null,
    payload varchar not null,
    file_digest varchar not null,
    line bigint not null,
    conversation_id varchar,
    target_id varchar,
    source varchar default 'feedback',
    record varchar
);

-- The lines that could not be read, with what they are read with when they are retried.
create table raw.quarantine (
    quarantine_id varchar primary key,
    path varchar not null,
    file_digest varchar not null,
    line bigint not null,
    reason varchar not null,
    content blob not null,
    quarantined_at timestamptz not null,
    source varchar default 'fivekey',
    workload_id varchar default '',
    client_id varchar default ''
);

-- A file is read again when it is named with another source or other defaults. A log is written to
-- while it is collected: `size` is how many bytes of it were read, from where it is read on; null
-- where a file can't be read on: it is packed, no file of lines, or its rows belong together.
create table raw.files (
    source varchar not null,
    digest varchar not null,
    workload_id varchar not null,
    client_id varchar not null,
    path varchar not null,
    rows bigint not null,
    quarantined bigint not null,
    loaded_at timestamptz not null,
    size bigint,
    primary key (digest, source, workload_id, client_id)
);

-- The fields that each source has shown, and where each was first seen.
create table raw.fields (
    source varchar not null,
    field varchar not null,
    first_path varchar not null,
    first_seen_at timestamptz not null,
    is_new boolean not null,
    primary key (source, field)
);

-- The parts (spans and log records) of which model calls were loaded from telemetry, by digests: of
-- trace and span, and of the part. They are kept for a week: a part that an exporter sends again
-- after its call was loaded is not another call.
create table raw.loaded_parts (
    client_id varchar not null,
    call_digest varchar not null,
    part_digest varchar not null,
    loaded_at timestamptz not null
);

-- Rows that retention took out of the warehouse: known still, so that nothing loads them again.
create table raw.archived (
    kind varchar not null,
    id varchar not null,
    timestamp timestamptz not null,
    path varchar not null
);

-- The clients of a workload and when each was first loaded, which decides whom it can crowd out. It
-- is kept apart from the interactions: those go when they are archived or erased.
create table curated.clients (
    workload_id varchar not null,
    client_id varchar not null,
    first_loaded_at timestamptz,
    primary key (workload_id, client_id)
);

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

-- What curation makes of feedback before it judges the interactions.
create table staging.regards (
    interaction_id varchar not null,
    regard double not null,
    dislike varchar,
    feedback_ids varchar[] not null
);

create table staging.unused (
    feedback_id varchar not null
);

-- What the rules made of each interaction: what keeps it out, what else they found in it, what it
-- counts for, and whether it waits for a person.
create table curated.verdicts (
    interaction_id varchar not null,
    workload_id varchar not null,
    objection varchar,
    representative_id varchar,
    judged_at timestamptz not null,
    mark varchar,
    is_held boolean default false,
    flags struct(
        rule varchar,
        factor double,
        mark varchar
    )[] default [],
    weight double default 1.0
);

-- Append-only: a person's word outlives every curation.
create table curated.releases (
    interaction_id varchar not null,
    workload_id varchar not null,
    rule varchar not null,
    released_by varchar not null,
    note varchar not null,
    released_at timestamptz not null,
    primary key (interaction_id, rule)
);

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

-- What redaction took out of a workload's accepted interactions: counts by kind, never a value.
create table curated.redactions (
    workload_id varchar not null,
    kind varchar not null,
    interactions bigint not null,
    distinct_values bigint not null,
    replacements bigint not null
);

-- One row per conversation of a workload with personal data in it: the random key under which its
-- surrogates are drawn, and its interactions. An erasure that names one of them deletes the key.
create table curated.surrogate_keys (
    workload_id varchar not null,
    key varchar not null,
    interaction_ids varchar[] not null
);

-- What is learned from or tested on. `logged_answer` is what production answered, redacted. Rows
-- that are tied to one another, directly or through others, are one cluster of the gate's tests.
-- `content_digest` is of the texts, so that a night compares and freezes examples without reading
-- those that did not change; null of replayed ones.
create table curated.examples (
    example_id varchar not null,
    workload_id varchar not null,
    client_id varchar not null,
    logged_at timestamptz not null,
    split_by varchar not null,
    group_id varchar not null,
    side varchar not null,
    tool_names varchar[] not null,
    messages varchar not null,
    tools varchar not null,
    answer varchar not null,
    acceptable varchar,
    weight double not null,
    interaction_ids varchar[] not null,
    feedback_ids varchar[] not null,
    label varchar default '',
    language varchar,
    logged_answer varchar,
    cluster_id varchar,
    content_digest varchar
);

-- One row per example of the last snapshot: its part of the snapshot's key, a digest of the texts
-- themselves.
create table curated.example_digests (
    workload_id varchar not null,
    content_digest varchar not null,
    measured_digest varchar not null
);

create table curated.token_counts (
    tokenizer varchar not null,
    content varchar not null,
    tokens integer not null
);

-- Append-only. `group_id` names whatever ties rows together (a request, a conversation, a user, a
-- set of tools): its side is settled by the first snapshot that holds it. `stratum` and `draw_id`
-- tell among what it was drawn and with what; null where it was not drawn within a stratum.
create table curated.sides (
    workload_id varchar not null,
    group_id varchar not null,
    split_by varchar not null,
    side varchar not null check (side in ('train', 'validation', 'holdout')),
    stratum varchar,
    draw_id varchar,
    settled_at timestamptz not null,
    primary key (workload_id, group_id)
);

-- Where each interaction of a workload that may become an example stands, and what ties it to
-- others; `ties` begins with its own request and its group, a cluster is not among them.
create table curated.standings (
    interaction_id varchar not null,
    workload_id varchar not null,
    split_by varchar not null,
    ties varchar[] not null,
    cluster_id varchar,
    label varchar not null,
    side varchar not null,
    stratum varchar,
    draw_id varchar,
    component_id varchar
);

-- One row per state that a workload's holdout was frozen in; a row never leaves this table.
create table curated.holdout_versions (
    workload_id varchar not null,
    version integer not null,
    digest varchar not null,
    requests bigint not null,
    added_requests bigint not null,
    frozen_at timestamptz not null,
    primary key (workload_id, version)
);

-- The version in which each request was first held out.
create table curated.holdout_rows (
    workload_id varchar not null,
    example_id varchar not null,
    since_version integer not null
);

-- One row per held-out reference that was drawn for an audit: in which batch and place, on what
-- holdout, and what the person who was asked said of it; null until then. A row is never drawn
-- twice, and the first answer stays.
create table raw.audits (
    workload_id varchar not null,
    example_id varchar not null,
    interaction_id varchar not null,
    batch integer not null,
    place integer not null,
    holdout_version varchar not null,
    drawn_at timestamptz not null,
    verdict varchar,
    auditor varchar,
    answered_at timestamptz,
    primary key (workload_id, example_id)
);

-- What people's feedback comes to: pairs and labels to learn from, what they disagreed about, who
-- gave how much, which bursts were found, and what became of every single feedback. Pairs of the
-- holdout are never learned, and show whether a model prefers what people chose.
create table curated.preferences (
    preference_id varchar not null,
    workload_id varchar not null,
    source varchar not null,
    messages varchar not null,
    tools varchar not null,
    chosen varchar not null,
    rejected varchar not null,
    weight double not null,
    chosen_length bigint not null,
    rejected_length bigint not null,
    interaction_ids varchar[] not null,
    feedback_ids varchar[] not null,
    side varchar default 'train',
    group_id varchar,
    client_id varchar,
    language varchar,
    cluster_id varchar
);

create table curated.labels (
    label_id varchar not null,
    workload_id varchar not null,
    messages varchar not null,
    tools varchar not null,
    answer varchar not null,
    is_good boolean not null,
    weight double not null,
    interaction_ids varchar[] not null,
    feedback_ids varchar[] not null
);

-- One row per answer, or two answers, that people disagreed about. The weights are what their votes
-- weigh: for it (good, or the first answer's), against it, and tied.
create table curated.conflicts (
    workload_id varchar not null,
    kind varchar not null check (kind in ('pair', 'label', 'correction')),
    example_id varchar not null,
    subject varchar not null,
    weight_for double not null,
    weight_against double not null,
    weight_tied double not null,
    method varchar not null,
    confidence double not null,
    resolution varchar not null,
    for_ids varchar[] not null,
    against_ids varchar[] not null
);

-- One row per actor of a client; all without a name are one, with an empty `actor_id`. What is kept
-- of nobody's weight is more than `cap` of the whole.
create table curated.shares (
    workload_id varchar not null,
    client_id varchar not null,
    actor_id varchar not null,
    signals bigint not null,
    kept bigint not null,
    weight_before double not null,
    weight_after double not null,
    share_before double not null,
    share_after double not null,
    cap double not null
);

-- One row per flood (signals of one actor) or brigade (new actors with one aim) that was found.
create table curated.bursts (
    workload_id varchar not null,
    kind varchar not null check (kind in ('flood', 'brigade')),
    actors varchar[] not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    found bigint not null,
    expected double not null,
    chance double not null,
    aim varchar not null,
    held_back varchar[] not null
);

-- One row per feedback: what it is used for, or why it is not.
create table curated.fates (
    workload_id varchar not null,
    feedback_id varchar not null,
    fate varchar not null,
    detail varchar
);

-- Which outputs exist. Append-only.
create table raw.manifests (
    key varchar not null,
    kind varchar not null,
    workload_id varchar not null,
    path varchar not null,
    manifest json not null,
    recorded_at timestamptz not null,
    primary key (workload_id, kind, key)
);

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

-- Who started a turn by hand from which an evidence came.
create table raw.starters (
    evidence_digest varchar not null,
    flow_run_id varchar not null,
    started_by varchar not null,
    started_at timestamptz not null,
    primary key (evidence_digest, flow_run_id)
);

-- Decisions as a chain. A row's digest is the SHA-256 of its content, a JSON object of its columns
-- in the order of their names, of which `before` is the digest of the row before: 64 zeros in the
-- first row. What people wrote stands apart, in raw.decision_words, under a salt for each text; the
-- row holds the SHA-256 of salt and text. So a text can be erased and the chain still holds, and
-- without the salt nobody can tell whether a guess at it is right. `body` is what a link commits to
-- beside a person's words: a policy, a look, which version became champion after which, of which
-- this is the only record. `document_digest` is of the rules, or of what was
-- signed with its signature, which name people. Both are part of the content where there is one.
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
    digest varchar not null,
    body varchar,
    document_digest varchar
);

-- `field` is approver, comment, blame or document.
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

-- The last one-time code that was taken from each approver: neither it nor an older one is taken.
create table raw.approver_codes (
    approver varchar primary key,
    counter bigint not null,
    used_at timestamptz not null
);

-- Append-only: what a rejection blames. `decision` is its place in the chain of decisions; `kind`
-- is request (`name` is an example's id), tool or client (`name` is that of the slice).
-- `is_learned` tells that the challenger was trained on the request: then it is held until a person
-- has judged it, or released it.
create table curated.blamed (
    decision bigint not null,
    workload_id varchar not null,
    kind varchar not null check (kind in ('request', 'tool', 'client')),
    name varchar not null,
    is_learned boolean not null,
    blamed_at timestamptz not null,
    primary key (decision, kind, name)
);

-- Append-only: the policy that was in the workload's file before the first look at a holdout.
-- `decision` is its place in the chain of decisions. `sketch` has the smallest digests of the
-- holdout's `requests`, by which it is known under any workload's name.
create table raw.seals (
    decision bigint primary key,
    workload_id varchar not null,
    holdout_version varchar not null,
    requests bigint not null,
    sketch bigint[] not null,
    policy_digest varchar not null,
    policy varchar not null,
    alpha double not null,
    sealed_at timestamptz not null
);

-- Append-only, but for `test` and `outcome`, which are known when a look was judged. `seal` and
-- `decision` are places in the chain of decisions: of the sealed policy, and of the look itself.
-- `alpha` is what the look was given, of the `alpha_left` that the looks before it had left.
create table raw.looks (
    workload_id varchar not null,
    challenger_scorecard varchar not null,
    opponent_scorecard varchar not null,
    task varchar not null,
    metric varchar not null,
    policy_digest varchar not null,
    policy varchar not null,
    adapter varchar not null,
    holdout_version varchar not null,
    requests bigint not null,
    held bigint not null,
    sketch bigint[] not null,
    number integer not null,
    alpha double not null,
    alpha_left double not null,
    seal bigint not null,
    decision bigint not null,
    test varchar,
    outcome varchar,
    looked_at timestamptz not null,
    primary key (workload_id, challenger_scorecard, opponent_scorecard, metric, policy_digest)
);

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

-- One row per workload and verdict, `kept` where no rule objected.
create view marts.verdicts as
select
    workload_id,
    coalesce(objection, 'kept') as verdict,
    count(*) as interactions
from curated.verdicts
group by all;

-- One row per workload, rule and what was done: how many interactions it was done to.
create view marts.rules as
with

flagged as (
    select
        workload_id,
        unnest(flags) as flag
    from curated.verdicts
),

found as (
    select
        workload_id,
        objection as rule,
        case when is_held then 'hold' else 'drop' end as disposition
    from curated.verdicts
    where objection is not null
    union all
    select
        workload_id,
        flag.rule,
        case when flag.factor < 1 then 'weigh' else 'flag' end as disposition
    from flagged
)

select
    workload_id,
    rule,
    disposition,
    count(*) as interactions
from found
group by all;

-- One row per interaction that waits for a person to let it in or leave it out.
create view marts.held as
select
    verdicts.interaction_id,
    verdicts.workload_id,
    interactions.client_id,
    interactions.timestamp as logged_at,
    verdicts.objection as rule,
    verdicts.mark
from curated.verdicts as verdicts
inner join raw.interactions as interactions using (interaction_id)
where
    verdicts.is_held
    and not exists (
        select 1
        from curated.releases as releases
        where
            releases.interaction_id = verdicts.interaction_id
            and releases.rule = verdicts.objection
    );

-- Of each feedback, whether it moved anything.
create view marts.fates as
select
    workload_id,
    fate,
    starts_with(fate, 'used_') as is_used,
    count(*) as signals
from curated.fates
group by all;
