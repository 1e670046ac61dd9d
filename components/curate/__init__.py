"""Decide which interactions become examples, what they teach, and on which side they stand.

``pipeline`` is the way in and ``settings`` what a workload file may say; ``candidate`` reads an
interaction, ``rules`` object to it, ``redaction`` takes out personal data and secrets, ``near``
finds what was asked before, ``placing`` finds the side that it keeps for ever, ``split`` draws one,
``overlap`` keeps what is tested on from being trained on, ``preferences`` weigh what people said of
it, and ``balance`` chooses what is trained on. ``row_guard`` keeps a single row
from ending it. ``held`` shows what waits for a person, and
``losses`` which rules left out so much that a person is asked. What is set work (the newest
feedback, duplicates) is in ``sql/``.
"""
