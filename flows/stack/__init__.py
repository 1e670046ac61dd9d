"""The embedded stack: Prefect, MLflow and two workers on one machine, under one supervisor.

``control`` is the front (``up``, ``down``, ``status``); it launches ``supervisor``, a process of
its own that starts and watches the ``services`` as its ``children`` and notes what it does in
``state``. ``environment`` is what they all run under, ``processes`` finds and ends them, ``ports``
and ``health`` look at sockets, ``runs`` tells Prefect which flow runs died.
"""
