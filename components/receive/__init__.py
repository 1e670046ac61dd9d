"""Take interactions, feedback and telemetry over HTTP, and acknowledge what is on the disk.

``server`` listens, ``routes`` are the paths, ``app`` puts them together. A request passes
``tokens`` (who is it, what may it send), ``quotas`` (how much), ``admission`` (is there room),
``body`` (size, gzip) at its client's ``pace``, ``readers`` (here, or in the process that ``reader``
is), where an ``entry`` is made of it with ``records`` or ``otlp`` (is it well-formed), and
``commits`` (write and fsync, many requests at once). ``deadline`` cuts off clients that take for
ever, ``limits`` are the figures of all this.
"""
