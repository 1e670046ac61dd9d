"""Load what a person or a workload names: files, or the traces of an MLflow experiment."""

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from components.collect import loading
from components.collect.loaded import Loaded
from components.collect.loading import Input
from components.register import traces
from components.warehouse import Connection

MLFLOW = "mlflow:"
"""Before the name of an experiment whose traces are pulled through MLflow's client."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def load(con: Connection, given: Input, *, now: datetime) -> Loaded:
    """Load a file, or pull an experiment's traces and load those."""
    if not given.place.startswith(MLFLOW):
        return loading.load(con, given, now=now)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for trace in traces.pull(given.place.removeprefix(MLFLOW), since=BEGINNING):
            file.write(json.dumps(trace, default=str) + "\n")
        file.flush()
        return loading.load_copy(con, given, Path(file.name), now=now)


def summary(loaded: Sequence[Loaded]) -> str:
    """Say in one line what came of the files."""
    fresh = [file for file in loaded if not file.skipped]
    rows = sum(file.new for file in fresh)
    quarantined = sum(file.quarantined for file in fresh)
    said = (
        f"{rows} new rows from {len(fresh)} new of {len(loaded)} files, "
        f"{quarantined} lines in quarantine"
    )
    new_fields = sorted({f"{file.source}.{name}" for file in fresh for name in file.new_fields})
    return said + (f"; new fields: {', '.join(new_fields)}" if new_fields else "")
