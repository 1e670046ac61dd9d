"""Load the inputs of a workload: files, experiments and the spool."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from components.collect import (
    load_file,
    places,
    quarantine,
    segments,
    small_files,
    survey,
    writer,
)
from components.collect.field_map import short_name
from components.collect.load_file import Loaded
from components.collect.places import AwayError, UnreadableError
from components.collect.quarantine import Retried
from components.collect.source import Defaults, Input
from components.collect.survey import SurveyedFile
from components.extensions.machines import shared_spool
from components.extensions.machines.shared_spool import SharedSegment
from components.register import mlflow_api, tracking
from components.store import file_locks, warehouse
from components.store.warehouse import Connection, Location
from flows.settings import Settings
from flows.settings import load as load_settings
from flows.source_entries import (
    MLFLOW,
    away_servers,
    require_answering,
    server_of,
    unread_sentence,
)

Group: TypeAlias = Sequence[tuple[Input, Path]]
"""A file, or several small ones, with their local copies."""

LoadGroup: TypeAlias = Callable[[Connection, Group], list[Loaded | OSError]]
"""Loads a group; returns why a file of it can't be read."""

RAW = ("raw",)  # what loading writes of a shared warehouse

ALONE_SECONDS = 3600.0  # for another machine's collect of what receivers shipped

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

# How long a trace is pulled again: assessments come later, and MLflow can't search by them.
LATE = timedelta(days=30)


class UnreadFilesError(OSError):
    """Raised when the files of a load that could be read were loaded, and others couldn't be."""


def load_inputs(
    path: Location,
    inputs: Iterable[Input],
    *,
    now: datetime,
    unlisted: Mapping[str, OSError] = MappingProxyType({}),
    dry_run: bool = False,
    scratch: Path | None = None,
) -> Iterator[Loaded]:
    """Load files, each whole or not at all, and the new traces of experiments.

    What is elsewhere is fetched before the warehouse is opened for it, to ``scratch`` or the home's
    folder, and between two files others may have the warehouse. ``unlisted`` are places whose files
    are not known, and why. A ``dry_run`` rolls each transaction back, and shows first records.

    Raises:
        UnreadFilesError: Files are gone, such as a log that was rotated meanwhile, or may not be
            read, or their servers fail; all others were loaded.
    """
    load = partial(_load_group, now=now, dry_run=dry_run)
    return _load_pieces(path, inputs, load, unlisted, scratch)


def _load_group(
    con: Connection, group: Group, *, now: datetime, dry_run: bool = False
) -> list[Loaded | OSError]:
    within = warehouse.rehearsal if dry_run else writer.committed
    copies = dict(group)

    def alone(item: Input) -> Loaded | OSError:
        try:
            return load_file.load(
                con, item, copies[item], now=now, within=within, with_samples=dry_run
            )
        except (FileNotFoundError, PermissionError) as error:
            if str(error.filename) != str(copies[item]):  # of the warehouse
                raise
            return error

    if len(group) == 1:
        return [alone(item) for item in copies]
    items = [item for item, _ in group]
    outcomes = small_files.load(con, items, alone, now=now, within=within)
    if not dry_run:
        return outcomes
    return [
        outcome if isinstance(outcome, OSError) else load_file.sampled(outcome, *each)
        for each, outcome in zip(group, outcomes, strict=True)
    ]


def retry_quarantined(
    path: Location, source: str | None, *, now: datetime
) -> tuple[int, Iterator[Retried]]:
    """Read the quarantined lines of ``source`` (all if ``None``) again.

    Returns the number of parts, and what comes of each, which is kept whatever comes of the next;
    others get the warehouse in between.
    """
    turns = partial(warehouse.in_turns, path, memory=warehouse.COLLECTING, writes=RAW)
    (parts,) = turns([partial(quarantine.retriable, source=source)])
    return len(parts), turns(partial(quarantine.retry, ids=ids, now=now) for ids in parts)


def load_survey(
    path: Location, inputs: Iterable[Input], defaults: Defaults, *, now: datetime
) -> Iterator[SurveyedFile]:
    """Load files as ``load_inputs`` does; ``defaults`` apply to records without a workload."""
    surveyed: dict[Path, Input] = {}

    def named(item: Input, copy: Path) -> Input:
        with suppress(OSError):  # whoever loads it finds out why
            item = survey.with_defaults(item, copy, defaults)
        surveyed[Path(item.stored_place)] = item
        return item

    def load(con: Connection, group: Group) -> list[Loaded | OSError]:
        return _load_group(con, [(named(item, copy), copy) for item, copy in group], now=now)

    for loaded in _load_pieces(path, inputs, load):
        yield SurveyedFile(surveyed[loaded.path], loaded)


def load_spool(home: Settings, *, now: datetime, hold_back: bool = True) -> list[Loaded]:
    """Load what the home's receiver took, and what others shipped to the home's object store.

    Between two segments others may have the warehouse. Without ``hold_back`` no part of a call
    waits in the spool for the others.

    Raises:
        StoreError: The object store can't be used; what lies in the home was loaded.
    """
    load = partial(_load_segments, home, now=now, hold_back=hold_back)
    store = home.store
    if store is None:
        return load()
    with _collecting_alone(home):
        shared_spool.clear(home.spool)
        loaded, fetched = load(), list[SharedSegment]()
        with store.reaching(f"collecting from {store.url}/{shared_spool.PLACE}"):
            segments_there = shared_spool.listed(store)
            ahead_ns = shared_spool.clock_ahead_ns(store) if segments_there else 0
            fetch = partial(
                shared_spool.fetch, store, folder=home.spool, now=now, ahead_ns=ahead_ns
            )
            for batch in shared_spool.batches(segments_there):
                fetched += [each for each in batch if fetch(segment=each)]
                loaded += load()
            # Before the others are deleted: a kill between the two leaves a part twice.
            kept = shared_spool.ship(store, home.spool) if fetched else []
            for segment in {*fetched} - {*kept}:
                shared_spool.remove(store, segment)
        return loaded


@contextmanager
def _collecting_alone(home: Settings) -> Generator[None]:
    """Keep other collects from the shared spool, from listing to deletion.

    Else a part that one of them puts back, since it waits, could be of a call that another one has
    completed meanwhile.
    """
    with ExitStack() as stack:
        stack.enter_context(file_locks.held(home.locks / shared_spool.PLACE))
        if home.shared_warehouse:
            stack.enter_context(home.shared_warehouse.alone("shared spool", ALONE_SECONDS))
        yield


def _load_segments(home: Settings, *, now: datetime, hold_back: bool) -> list[Loaded]:
    pieces = segments.plan_pieces(home.spool, now=now, hold_back=hold_back)
    done = warehouse.in_turns(home.tables, pieces, memory=warehouse.COLLECTING, writes=RAW)
    return [segment for loaded in done for segment in loaded]


def _load_pieces(
    path: Location,
    inputs: Iterable[Input],
    load: LoadGroup,
    unlisted: Mapping[str, OSError] = MappingProxyType({}),
    scratch: Path | None = None,
) -> Iterator[Loaded]:
    # Where an erasure, or the next `up`, deletes what killed processes leave.
    scratch = scratch or load_settings().scratch
    unread, away = [*unlisted.values()], away_servers(unlisted)
    for is_here, members in groupby(inputs, _is_here):
        groups = (small_files.groups if is_here else _singly)(members)
        pieces = _piece_tasks(path, groups, load, scratch, away)
        seconds = warehouse.TURN_SECONDS if is_here else 0
        for outcomes in warehouse.in_turns(
            path, pieces, memory=warehouse.COLLECTING, seconds=seconds, writes=RAW
        ):
            for outcome in outcomes:
                if isinstance(outcome, OSError):
                    unread.append(outcome)
                else:
                    yield outcome
    if unread:
        raise UnreadFilesError(
            f"{len(unread)} places can't be read, all others were: {'; '.join(_reasons(unread))}"
        )


def _reasons(unread: Sequence[OSError]) -> list[str]:
    rest = len(unread) - MAX_UNREAD
    return [*map(str, unread[:MAX_UNREAD]), *([f"and {rest} more"] if rest > 0 else [])]


def _singly(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    return ([item] for item in inputs)


def _is_here(item: Input) -> bool:
    return places.REMOTE not in item.place and not item.place.startswith(MLFLOW)


def _piece_tasks(
    path: Location,
    groups: Iterable[Sequence[Input]],
    load: LoadGroup,
    scratch: Path,
    away: set[str],
) -> Iterator[Callable[[Connection], Sequence[Loaded | OSError]]]:
    for group in groups:
        if len(group) > 1:
            here = [(item, Path(item.place)) for item in group]
            yield lambda con, here=here: load(con, here)
            continue
        (item,) = group  # one at a time, each kept until its piece is loaded
        with ExitStack() as stack:
            try:
                require_answering(item.place, away)
                fetched = stack.enter_context(_fetched_file(path, item, scratch))
            except UnreadableError as error:
                if isinstance(error, AwayError):
                    away.add(server_of(item.place))
                yield lambda _, error=error: [error]
            else:
                yield lambda con, fetched=fetched: load(con, [fetched])


@contextmanager
def _fetched_file(path: Location, item: Input, scratch: Path) -> Generator[tuple[Input, Path]]:
    if not item.place.startswith(MLFLOW):
        with places.local_copy(item.place, scratch) as copy:
            yield item, copy
        return
    named = replace(item, source="mlflow")
    with warehouse.reading(path) as con:
        last = load_file.last_load(con, named)
    since = BEGINNING if last is None else last - LATE
    with file_locks.temporary_folder(scratch, "fetched-") as folder:
        copy = folder / "traces.jsonl"
        _pull_traces(item.place.removeprefix(MLFLOW), since, copy)
        yield named, copy


def _pull_traces(experiment: str, since: datetime, to: Path) -> None:
    try:
        with to.open("w") as file:
            for trace in tracking.pull_traces(experiment, since=since):
                file.write(json.dumps(trace, default=str) + "\n")
    except tracking.TracesError as error:
        kind = AwayError if mlflow_api.is_away(error) else UnreadableError
        raise kind(str(error)) from error


def loading_summary(loaded: Sequence[Loaded], folders: Sequence[str] = ()) -> str:
    """Return a one-line summary of loaded files, and of the ``folders`` that were not read."""
    fresh = [file for file in loaded if not file.skipped]
    rows = sum(file.new for file in fresh)
    quarantined = sum(file.quarantined for file in fresh)
    summary = (
        f"{rows} new rows from {len(fresh)} new of {len(loaded)} files, "
        f"{quarantined} lines in quarantine"
    )
    if waiting := sum(file.waiting for file in loaded):
        summary += (
            f"; {waiting} model calls wait up to {segments.HOLD_BACK_SECONDS:.0f} s for their span "
            "or log records"
        )
    new_fields = sorted(
        {f"{short_name(file.source)}.{name}" for file in fresh for name in file.new_fields}
    )
    summary += f"; new fields: {', '.join(new_fields)}" if new_fields else ""
    return summary + (f"; {unread_sentence(folders)}" if folders else "")


MAX_UNREAD = 20  # maximum places that can't be read, and are named
