-- What the rules found in an interaction besides what keeps it out, what it counts for, and what a
-- person let in that a rule had held.

alter table curated.verdicts add column mark varchar;
-- DuckDB 1.5 can't commit two columns that are added with a default to a table with rows.
alter table curated.verdicts add column is_held boolean;
alter table curated.verdicts alter column is_held set default false;
alter table curated.verdicts add column flags struct(
    rule varchar,
    factor double,
    mark varchar
)[];
alter table curated.verdicts alter column flags set default [];
alter table curated.verdicts add column weight double;
alter table curated.verdicts alter column weight set default 1.0;
update curated.verdicts set is_held = false, flags = [], weight = 1.0;

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
