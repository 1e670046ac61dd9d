"""Load logs and feedback into ``raw``; what is invalid goes to quarantine.

load_file is the way in for a file, segments for what the receiver took. files opens any
container and detects its source (sources/, by the protocol in source), lines and formats split
it, record_batches validates, writer stores, reconciliation merges two records of one
interaction. growth resumes grown files, quarantine retries, retention archives,
five_key_export writes everything out.
"""
