-- The clients of a workload and when each was first loaded, which decides whom it can crowd out. It
-- is kept apart from the interactions: those go when they are archived or erased.

create table curated.clients (
    workload_id varchar not null,
    client_id varchar not null,
    first_loaded_at timestamptz,
    primary key (workload_id, client_id)
);
