-- What people's feedback comes to: pairs and labels to learn from, what they disagreed about, who
-- gave how much, which bursts were found, and what became of every single feedback.

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
    feedback_ids varchar[] not null
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

-- Of each feedback, whether it moved anything.
create view marts.fates as
select
    workload_id,
    fate,
    starts_with(fate, 'used_') as is_used,
    count(*) as signals
from curated.fates
group by all;

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
