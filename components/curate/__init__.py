"""Decide which interactions become examples, what they teach, and on which side they are.

curate_workload is the entry point and settings the ``curate`` section. parsed_rows keeps what is in
the rows of raw, interaction parses what they hold, row_judgement applies rules and redaction to
each interaction (in worker_pool), judgement_cache keeps what that gave in files (kept_files), which
judged_rows reads by column, near finds near-duplicates, ties
and split choose a side that a row keeps, decontamination keeps what is tested on from being trained
on, client_limits protects clients from each other, preferences weighs feedback, row_budget, replay
and training_side choose what is trained on. held_rows lists rows for a person to release. Set-based
work is in ``sql/``.
"""
