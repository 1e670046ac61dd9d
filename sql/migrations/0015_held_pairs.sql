-- What language a request was asked in stays with its row, and pairs of the holdout stay, too: they
-- are never learned, and show whether a model prefers what people chose.

alter table curated.examples add column language varchar;

alter table curated.preferences add column side varchar default 'train';

alter table curated.preferences add column group_id varchar;

alter table curated.preferences add column client_id varchar;

alter table curated.preferences add column language varchar;
