-- What came in, as it came: files, interactions, feedback, and the lines that could not be read.
-- A line is stored once, verbatim; what is in it is read out of it on demand.

create table raw.files (
    kind varchar not null,
    digest varchar not null,
    path varchar not null,
    rows bigint not null,
    quarantined bigint not null,
    loaded_at timestamptz not null,
    primary key (kind, digest)
);

create table raw.interactions (
    interaction_id varchar not null,
    timestamp timestamptz not null,
    workload_id varchar not null,
    client_id varchar not null,
    payload varchar not null,
    file_digest varchar not null,
    line bigint not null
);

-- A view, not generated columns: those are computed on insert, and loading takes twice as long.
create view raw.contents as
select
    interaction_id,
    json_extract(payload, '$.request') as request,
    json_extract(payload, '$.response') as response,
    json_merge_patch(
        payload::json,
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
    response_id varchar not null,
    actor_id varchar not null,
    kind varchar not null,
    payload varchar not null,
    file_digest varchar not null,
    line bigint not null
);

create table raw.quarantine (
    quarantine_id varchar primary key,
    path varchar not null,
    file_digest varchar not null,
    line bigint not null,
    reason varchar not null,
    content blob not null,
    quarantined_at timestamptz not null
);
