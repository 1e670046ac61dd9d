"""Decide which interactions become examples, what they teach, and on which side they are.

curate_workload is the way in and settings the ``curate`` section. interaction parses,
row_judgement applies rules and redaction to each interaction (in worker_pool), near finds
near-duplicates, ties and placement choose a side that a row keeps (split draws it),
decontamination keeps what is tested on from being trained on, client_limits protects clients
from each other, preferences weighs feedback, row_budget, replay and training_side choose
what is trained on. held_rows shows what waits for a person. Set-based work is in ``sql/``.
"""
