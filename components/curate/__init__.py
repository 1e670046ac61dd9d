"""Decide which interactions become examples, what they teach, and on which side they stand.

``pipeline`` is the way in; ``candidate`` reads an interaction, ``rules`` objects to it, ``split``
draws its side. What is set work (the newest feedback, duplicates) is in ``sql/``.
"""
