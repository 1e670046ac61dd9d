"""Summarize collected logs: their workloads, which feedback joins, and a sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from components.collect import files, load_file
from components.collect.load_file import Loaded
from components.collect.source import Defaults, Input, ParsedRecord
from components.schema import Json
from components.store import record_identity, warehouse
from components.store.warehouse import Connection

MAX_SAMPLED = 2_000  # maximum interactions in a workload's sample
MAX_BYTES = 2**18  # maximum bytes of a record in the sample, which is held in memory

UNNAMED = "\N{REPLACEMENT CHARACTER}"  # a default that shows which records name no workload


@dataclass(frozen=True, slots=True)
class SurveyedFile:
    """A log file with the defaults it needs, and the outcome of its load."""

    input: Input
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class LoggedWorkload:
    """A workload named by interactions; ``paths`` are the files that contain them."""

    workload_id: str
    interactions: int
    clients: int
    first_at: datetime
    last_at: datetime
    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class FeedbackJoin:
    """Feedback of one kind about a workload."""

    workload_id: str
    kind: str
    events: int
    joined: int  # those that name a logged response or conversation, its client and workload
    named_otherwise: int  # those that name one, but another client or workload
    paths: Sequence[str]


def with_defaults(input_file: Input, path: Path, defaults: Defaults) -> Input:
    """Return a file to load, with ``defaults`` only if its records name no workload."""
    if _names_no_workload(input_file, path):
        return replace(input_file, defaults=defaults)
    return input_file


def workloads(con: Connection) -> list[LoggedWorkload]:
    """Return the collected workloads, the largest first."""
    return warehouse.records(con, "marts/logged_workloads", LoggedWorkload)


def feedback(con: Connection) -> list[FeedbackJoin]:
    """Return the collected feedback by workload and kind, and how much of it joins."""
    return warehouse.records(con, "marts/feedback_joins", FeedbackJoin)


def sample(con: Connection, workload_id: str) -> Iterator[dict[str, Json]]:
    """Yield a random sample of a workload's interactions, as canonical records."""
    values = {"workload_id": workload_id, "most": MAX_SAMPLED, "most_bytes": MAX_BYTES}
    for row in warehouse.read(con, "marts/logged_sample", dict[str, str], **values):
        yield dict(record_identity.read(row["record"]))


def _names_no_workload(input_file: Input, path: Path) -> bool:
    form = files.detect_form(path)
    source = load_file.source_of(input_file, path, form)
    rows = files.first_rows(path, form)
    records = source.read(rows, Defaults(UNNAMED, UNNAMED))
    return any(
        isinstance(record, ParsedRecord) and record.record.get("workload_id") == UNNAMED
        for record in records
    )
