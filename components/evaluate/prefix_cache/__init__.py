"""The CPU's engine: requests as a prefix tree, each token computed once, greedy answers in slots.

Only `prefix_engine` imports it.
"""
