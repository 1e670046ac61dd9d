-- One row per mention of an interaction or a feedback event by a row of a snapshot's file.
-- Reads the Parquet file at the path.

select unnest(interaction_ids || feedback_ids) as id
from read_parquet($path)
