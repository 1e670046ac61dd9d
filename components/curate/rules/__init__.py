"""Why an interaction is no example, or counts for less: pure functions, a topic a file.

``screen`` asks them all, in order. ``structure`` objects to what can't be rendered or read,
``ending`` to answers that are none or not whole, ``calls`` to tool calls that can't be made,
``disliked`` to what people disliked.
"""
