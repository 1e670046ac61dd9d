-- What redaction took out of a workload's accepted interactions: counts by kind, never a value.

create table curated.redactions (
    workload_id varchar not null,
    kind varchar not null,
    interactions bigint not null,
    distinct_values bigint not null,
    replacements bigint not null
);
