"""Have a large model say which of two texts answers a request better, and say how far to trust it.

``question`` words what is asked and reads the verdict strictly, ``endpoint`` asks, ``verdicts``
remembers, ``comparing`` asks of both orders, ``agreement`` holds the judge against people, and
``judged`` makes scorecards of it.
"""
