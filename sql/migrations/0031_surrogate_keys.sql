-- One row per conversation of a workload with personal data in it: the random key under which its
-- surrogates are drawn, and its interactions. An erasure that names one of them deletes the key.
create table curated.surrogate_keys (
    workload_id varchar not null,
    key varchar not null,
    interaction_ids varchar[] not null
);
