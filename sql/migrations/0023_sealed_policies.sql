-- A look keeps the policy that it was under and the share of alpha that it was given; a policy is
-- sealed, as a link of the chain of decisions, before the first look at a holdout.

-- `body` is what a link commits to beside a person's words: a policy, or a look. It is part of the
-- link's content where there is one.
alter table raw.decision_chain add column body varchar;

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
-- `alpha` is what the look was given, of the `alpha_left` that the looks before it had left. Looks
-- of older versions have no decision, and only of some is known what they were given.
create table raw.looks_given (
    workload_id varchar not null,
    challenger_scorecard varchar not null,
    opponent_scorecard varchar not null,
    task varchar not null,
    metric varchar not null,
    policy_digest varchar not null,
    policy varchar,
    adapter varchar,
    holdout_version varchar not null,
    requests bigint not null,
    held bigint not null,
    sketch bigint[] not null,
    number integer not null,
    alpha double,
    alpha_left double,
    seal bigint,
    decision bigint,
    test varchar,
    outcome varchar,
    looked_at timestamptz not null,
    primary key (workload_id, challenger_scorecard, opponent_scorecard, metric, policy_digest)
);

insert into raw.looks_given by name
with

judged as (
    select
        workload_id,
        manifest ->> '$.subject.challenger_scorecard' as challenger_scorecard,
        manifest ->> '$.subject.opponent_scorecard' as opponent_scorecard,
        manifest ->> '$.judgement.metric' as metric,
        (manifest ->> '$.judgement.look')::integer as look_number,
        max(manifest -> '$.policy')::varchar as policy,
        max((manifest ->> '$.judgement.alpha')::double) as alpha,
        max(manifest ->> '$.subject.adapter') as adapter,
        max(manifest ->> '$.judgement.outcome') as outcome
    from raw.manifests
    where kind = 'evidence'
    group by workload_id, challenger_scorecard, opponent_scorecard, metric, look_number
)

select
    looks.workload_id,
    looks.challenger_scorecard,
    looks.opponent_scorecard,
    coalesce(judged.policy ->> '$.task', 'holdout') as task,
    looks.metric,
    '' as policy_digest,
    judged.policy,
    judged.adapter,
    looks.holdout_version,
    looks.requests,
    looks.requests as held,
    [] as sketch,
    looks.number,
    judged.alpha,
    judged.outcome,
    looks.looked_at
from raw.looks as looks
left join judged
    on
        looks.workload_id = judged.workload_id
        and looks.challenger_scorecard = judged.challenger_scorecard
        and looks.opponent_scorecard = judged.opponent_scorecard
        and looks.metric = judged.metric
        and looks.number = judged.look_number;

drop table raw.looks;

alter table raw.looks_given rename to looks;
