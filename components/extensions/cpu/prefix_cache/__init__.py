"""Continuous batches on a CPU: prefixes read once, answers in slots, blocked weights.

`prefix_engine` and the embedded engine use it.
"""
