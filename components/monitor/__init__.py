"""Monitor: how the models that answer fare, from the traffic and the feedback that came in.

``live`` counts by model and day, ``page`` words it as Markdown and HTML, ``picture`` draws the
thumbs, ``figures`` are what Prometheus scrapes.
"""
