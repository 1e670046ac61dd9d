"""Load what a person or a workload names: files, or the traces of an MLflow experiment."""

import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from components import warehouse
from components.collect import loading, places, spooled, survey
from components.collect.loaded import Loaded
from components.collect.loading import Input, Rehearsed
from components.collect.record import Defaults
from components.collect.sources import mlflow_traces
from components.collect.survey import SurveyedFile
from components.register import traces
from components.warehouse import Connection
from flows.sources import MLFLOW

Result = TypeVar("Result", Loaded, Rehearsed, SurveyedFile)

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

LATE = timedelta(days=30)
"""For so long a trace is pulled again: assessments come later, and MLflow can't search by them."""


def load(path: Path, found: Iterable[Input], *, now: datetime) -> Iterator[Loaded]:
    """Load files, each whole or not at all, and the new traces of experiments.

    What is elsewhere is fetched before the warehouse is opened for it, and between two files
    others may have the warehouse.

    Args:
        path: The warehouse.
        found: What to load.
        now: When it is done (UTC).
    """
    return _each(path, found, partial(loading.load_copy, now=now))


def rehearse(path: Path, found: Iterable[Input], *, now: datetime) -> Iterator[Rehearsed]:
    """Load as ``load`` does and undo it: tell what would come of it."""
    return _each(path, found, partial(loading.rehearse_copy, now=now))


def load_survey(
    path: Path, found: Iterable[Input], defaults: Defaults, *, now: datetime
) -> Iterator[SurveyedFile]:
    """Load files as ``load`` does, with ``defaults`` where their records name no workload."""

    def load_copy(con: Connection, given: Input, copy: Path) -> SurveyedFile:
        return survey.load(con, given, copy, defaults, now=now)

    return _each(path, found, load_copy)


def load_spool(path: Path, folder: Path, *, now: datetime) -> list[Loaded]:
    """Load what the receiver took; between two segments others may have the warehouse."""
    pieces = spooled.pieces(folder, now=now)
    done = warehouse.in_turns(path, pieces, memory=warehouse.COLLECTING)
    return [one for loaded in done for one in loaded]


def _each(
    path: Path, found: Iterable[Input], do: Callable[[Connection, Input, Path], Result]
) -> Iterator[Result]:
    for is_here, members in groupby(found, _is_here):
        pieces = _pieces(path, members, do)
        seconds = warehouse.TURN_SECONDS if is_here else 0
        yield from warehouse.in_turns(path, pieces, memory=warehouse.COLLECTING, seconds=seconds)


def _is_here(given: Input) -> bool:
    return places.REMOTE not in given.place and not given.place.startswith(MLFLOW)


def _pieces(
    path: Path, found: Iterable[Input], do: Callable[[Connection, Input, Path], Result]
) -> Iterator[Callable[[Connection], Result]]:
    """Fetch one after the other, and keep each for as long as its piece of work lasts."""
    for given in found:
        with _fetched(path, given) as (named, copy):
            yield lambda con, named=named, copy=copy: do(con, named, copy)


@contextmanager
def _fetched(path: Path, given: Input) -> Generator[tuple[Input, Path]]:
    if not given.place.startswith(MLFLOW):
        with places.local(given.place) as copy:
            yield given, copy
        return
    named = replace(given, source=mlflow_traces.NAME)
    with warehouse.connect(path) as con:
        last = loading.last_load(con, named)
    with _pulled(named, last) as copy:
        yield named, copy


@contextmanager
def _pulled(given: Input, last: datetime | None) -> Generator[Path]:
    """Pull the traces that began after the last load, or not long before it, into a file."""
    since = BEGINNING if last is None else last - LATE
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for trace in traces.pull(given.place.removeprefix(MLFLOW), since=since):
            file.write(json.dumps(trace, default=str) + "\n")
        file.flush()
        yield Path(file.name)


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
