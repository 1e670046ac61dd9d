"""Load what a person or a workload names: files, or the traces of an MLflow experiment."""

import json
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.collect import loading
from components.collect.loaded import Loaded
from components.collect.loading import Input, Rehearsed
from components.collect.sources import mlflow_traces
from components.register import traces
from components.warehouse import Connection

MLFLOW = "mlflow:"
"""Before the name of an experiment whose traces are pulled through MLflow's client."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

LATE = timedelta(days=30)
"""For so long a trace is pulled again: assessments come later, and MLflow can't search by them."""


def load(con: Connection, given: Input, *, now: datetime) -> Loaded:
    """Load a file, or pull an experiment's new traces and load those."""
    if not given.place.startswith(MLFLOW):
        return loading.load(con, given, now=now)
    with _pulled(con, given) as (named, path):
        return loading.load_copy(con, named, path, now=now)


def rehearse(con: Connection, given: Input, *, now: datetime) -> Rehearsed:
    """Load as ``load`` does and undo it: tell what would come of it."""
    if not given.place.startswith(MLFLOW):
        return loading.rehearse(con, given, now=now)
    with _pulled(con, given) as (named, path):
        return loading.rehearse_copy(con, named, path, now=now)


@contextmanager
def _pulled(con: Connection, given: Input) -> Generator[tuple[Input, Path]]:
    """Pull the traces that began after the last load, or not long before it, into a file."""
    named = replace(given, source=mlflow_traces.NAME)
    last = loading.last_load(con, named)
    since = BEGINNING if last is None else last - LATE
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for trace in traces.pull(given.place.removeprefix(MLFLOW), since=since):
            file.write(json.dumps(trace, default=str) + "\n")
        file.flush()
        yield named, Path(file.name)


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
