"""One module for each form in which applications keep their traffic.

Each has ``NAME``, ``claims`` (is this record one of ours?) and ``read`` (rows into canonical
records), as ``components.collect.record.Source`` describes; ``components.collect.detect`` lists
them.
"""
