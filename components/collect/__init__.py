"""Read logs and feedback files into ``raw``; what can't be read goes to quarantine.

``loading`` is the way in: it loads a file, or many, of a source (``sources``). ``lines`` takes a
file apart, ``loaded`` counts what came of it.
"""
