"""The storage of all stages: the warehouse, output folders, and the receiver's spool.

Start at warehouse (DuckDB, migrations, the statements of sql/); lock waits for its file.
lake is the address of one that several machines share, with lake_connection, lake_schema and
lake_locks; moved_tables copies one to the other, moved_outputs fills an object store. working_copy
copies one workload into memory, arrow passes Arrow tables to it, archived_files finds the rows that
retention took out. home_files lists a home, unpacked_file reads plain and packed files, json_lines
those that settings name, parquet_files those of snapshots.
output_folders finds finished outputs, here and where machines share them, manifest finishes one,
ledger records outputs, erasures and uses of holdouts, spool keeps received requests, counters count
across processes, record_identity compares records, addresses are shown without their secrets.
"""
