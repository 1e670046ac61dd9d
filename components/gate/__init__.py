"""Judge scorecards: ``policy`` is what is asked, ``judge`` gives a ``judgement`` with reasons.

``comparable`` refuses what can't be compared, ``compare`` and ``slices`` compare the rest,
``inference`` chooses among the statistics (``mcnemar``, ``intervals``, ``betting``),
``holm``, ``spending`` and ``power`` keep them honest. ``evidence``, ``brief`` and ``report`` are
what is kept and read.
"""
