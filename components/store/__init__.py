"""What all stages store: the warehouse, output folders, and the receiver's spool.

Start at warehouse (DuckDB, migrations, the statements of sql/); lock waits for its file,
working_copy holds one workload of it in memory, arrow hands it Arrow tables. manifest
finishes output folders, ledger records outputs, erasures and uses of holdouts, spool keeps what
the receiver took, counters count across processes, record_identity tells equal records.
"""
