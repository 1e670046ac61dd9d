"""What is wrong with an interaction: pure functions, a topic a file, each gives what it found.

``screen`` asks them in order, and ``dispositions`` is what a workload may say about each.
``structure`` objects to what can't be rendered, ``ending`` to answers that are none or not whole,
``calls`` and ``schema`` to tool calls that can't be made. ``failure`` knows error messages,
``refusal`` refusals, ``repetition`` loops, ``leakage`` the system message in an answer,
``injection`` attacks in user text, and ``language`` tells languages. What people dislike is no
rule's matter: ``components.curate.preferences`` weighs it.
"""
