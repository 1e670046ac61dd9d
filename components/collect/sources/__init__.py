"""One module for each format of application logs.

Each source has ``NAME``, ``claims`` (is this record in its format?) and ``read`` (rows to
canonical records, mostly one by one: ``fields.by_row``), as ``components.collect.source.Source``
describes; ``components.collect.importers`` lists them, with those of particular products in
``components.extensions.sources``. fields and canonical are their tools.
"""
