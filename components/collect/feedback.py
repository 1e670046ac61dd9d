"""Load a file of feedback: one JSON object a line, each about one response."""

from datetime import datetime
from pathlib import Path

from components.collect import loading
from components.collect.loaded import Loaded
from components.collect.loading import Input
from components.collect.sources import feedback
from components.warehouse import Connection


def load(con: Connection, path: Path, *, now: datetime) -> Loaded:
    """Load a feedback file into ``raw.feedback``, where it waits if its response has not arrived.

    A line holds ``timestamp``, ``workload_id``, ``client_id``, ``response_id`` (the ``id`` of the
    response), ``actor_id``, ``kind`` and ``value``: ``thumb`` with ``"up"`` or ``"down"``,
    ``correction`` with the assistant message that should have been the answer.
    """
    return loading.load(con, Input(str(path), feedback.NAME), now=now)
