"""Continuous batches on a CPU: prefixes read once, answers in slots, blocked weights.

Only `evaluate.prefix_engine` and the embedded engine import it.
"""
