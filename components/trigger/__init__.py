"""Trigger: tell when a turn is worth its price.

``martingale`` is the one test, ``inputs`` and ``votes`` are what it looks at, ``deciding`` weighs
the signs against cool-down and budget, ``book`` keeps every start and every non-start.
"""
