"""Load logs and feedback into ``raw``; invalid records go to quarantine.

load_file loads a file, small_files several together, segments the receiver's spool. places finds
files, files opens any container and detects its source (sources/, which implement the protocol in
source), lines, json_arrays and parquet_rows split it, record_batches validates, writer stores,
reconciliation merges two records of one interaction. growth resumes grown files, quarantine lists
and retries bad lines, retention archives old rows, survey summarizes logs.
"""
