"""What is wrong with an interaction: pure functions that return what they found.

screen applies them in order; ``Dispositions`` in ``components.curate.settings`` is what a
workload may set for each. structure, bad_answers, injection and language hold the rules.
"""
