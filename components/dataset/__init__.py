"""Freeze curated examples into an immutable snapshot folder.

``snapshot`` decides whether there is anything to write and finishes the folder; ``rows`` renders
examples and writes them as Parquet; ``preferences`` writes pairs and labels; ``holdout`` numbers
the holdout's versions; ``card`` says what is in the folder, from ``figures``, with ``pictures``.
"""
