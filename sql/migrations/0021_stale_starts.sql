-- The first homes that kept starts took none by an approval gone stale: 0020 was changed after it
-- had been applied there. The table is made anew with what 0020 says now; elsewhere that changes
-- nothing.
alter table raw.starts rename to starts_before;

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

insert into raw.starts by name from raw.starts_before;

drop table raw.starts_before;
