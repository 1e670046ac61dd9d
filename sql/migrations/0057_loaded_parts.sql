-- The parts (spans and log records) of which model calls were loaded from telemetry, by digests: of
-- trace and span, and of the part. They are kept for a week: a part that an exporter sends again
-- after its call was loaded is not another call.
create table raw.loaded_parts (
    client_id varchar not null,
    call_digest varchar not null,
    part_digest varchar not null,
    loaded_at timestamptz not null
);
