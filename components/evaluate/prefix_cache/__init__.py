"""The CPU's engine: requests as a prefix tree, each token computed once, greedy answers in slots.

Only `engines.transformers_engine` uses it; delete both uses to answer with HFLM alone.
"""
