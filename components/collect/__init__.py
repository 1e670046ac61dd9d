"""Read logs and feedback files into ``raw``; what can't be read goes to quarantine.

``interactions`` and ``feedback`` are the two kinds of file; ``loading`` does for both what they
share, ``lines`` takes a file apart, ``loaded`` says what came of it.
"""
