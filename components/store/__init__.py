"""The storage of all stages: the warehouse, output folders, and the receiver's spool.

Start at warehouse (DuckDB, migrations, the statements of sql/); lock waits for its file.
warehouse_port is what it asks of one that several machines share, an extension. working_copy copies
one workload into memory, arrow passes Arrow tables to it, archived_files finds the rows that
retention took out. home_files lists a home, unpacked_file reads plain and packed files,
parquet_files those of snapshots. output_folders finds finished outputs, here and, by the port
shared_files, where machines share them, manifest finishes one,
ledger records outputs, erasures and uses of holdouts, spool keeps received requests, counters count
across processes, record_identity compares records, addresses are shown without their secrets.
"""
