"""Load a log of interactions: one JSON object a line, as applications and gateways write it."""

from datetime import datetime
from pathlib import Path

from components.collect import loading
from components.collect.loaded import Loaded
from components.collect.loading import Input
from components.collect.sources import fivekey
from components.warehouse import Connection


def load(con: Connection, path: Path, *, now: datetime) -> Loaded:
    """Load a log file into ``raw.interactions``.

    A line holds ``timestamp`` (unix seconds or ISO 8601; without an offset it is UTC),
    ``workload_id``, ``client_id``, ``request`` (with ``messages``) and ``response``, both as
    OpenAI chat completions have them. Further keys are kept; ``metadata.acceptable`` may list the
    calls that an evaluation accepts, none where no call is right. Equal lines are one interaction,
    wherever they come from.
    """
    return loading.load(con, Input(str(path), fivekey.NAME), now=now)
