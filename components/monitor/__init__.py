"""Monitor the models in production, and decide whether a turn is worth its price.

signs tests for drift, turn_starts decides and logs starts (settings is the ``trigger``
section); workload_status counts by model and day, status_page renders it.
"""
