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
