"""Rules against bad interactions: pure functions that return a finding or ``None``.

screen applies them in order; ``Dispositions`` in ``components.curate.settings`` has the action
for each. structure, bad_answers, injection and language hold the rules.
"""
