-- Traffic comes from more than the five-key log: every row says from which source, and keeps the
-- canonical record beside the source's own payload where the two differ.

alter table raw.interactions add column source varchar default 'fivekey';
alter table raw.interactions add column record varchar;
alter table raw.feedback alter column response_id drop not null;
alter table raw.feedback add column conversation_id varchar;
alter table raw.feedback add column target_id varchar;
alter table raw.feedback add column source varchar default 'feedback';
alter table raw.feedback add column record varchar;

-- What a row was read with is asked again when its quarantine is retried.
alter table raw.quarantine add column source varchar default 'fivekey';
alter table raw.quarantine add column workload_id varchar default '';
alter table raw.quarantine add column client_id varchar default '';
update raw.quarantine
set source = 'feedback'
from raw.files as files
where quarantine.file_digest = files.digest and files.kind = 'feedback';

-- A file is read again when it is named with another source or other defaults.
create table raw.files_of_sources (
    source varchar not null,
    digest varchar not null,
    workload_id varchar not null,
    client_id varchar not null,
    path varchar not null,
    rows bigint not null,
    quarantined bigint not null,
    loaded_at timestamptz not null,
    primary key (digest, source, workload_id, client_id)
);

insert into raw.files_of_sources by name
select
    digest,
    path,
    rows,
    quarantined,
    loaded_at,
    '' as workload_id,
    '' as client_id,
    case when kind = 'feedback' then 'feedback' else 'fivekey' end as source
from raw.files;

drop table raw.files;

alter table raw.files_of_sources rename to files;

-- The fields that each source has shown, and where each was first seen.
create table raw.fields (
    source varchar not null,
    field varchar not null,
    first_path varchar not null,
    first_seen_at timestamptz not null,
    is_new boolean not null,
    primary key (source, field)
);

-- Rows that retention took out of the warehouse: known still, so that nothing loads them again.
create table raw.archived (
    kind varchar not null,
    id varchar not null,
    timestamp timestamptz not null,
    path varchar not null
);

create or replace view raw.contents as
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
