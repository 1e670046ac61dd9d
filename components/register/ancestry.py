"""Follow a version back to what it came from: decision, scorecards, snapshot, rows, log files.

Nothing is remembered for this: every output says what it was made from, down to the ids of rows,
and the warehouse knows the file and the line of each. What was erased or deleted is named as gone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from components import manifest, warehouse
from components.register import aliases, journal
from components.register.journal import Entry
from components.register.registry import Version
from components.schema import Json
from components.shown import texts
from components.warehouse import Connection

SHOWN = 3
"""Ids that are told of each kind of row."""

SIDES = ("train", "validation", "holdout", "preferences", "labels")
"""The files of a snapshot, as they are told."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Where a workload's outputs lie, each by its key."""

    evidence: Path
    scorecards: Path
    adapters: Path
    snapshots: Path


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said of the evidence."""

    decision: str
    approver: str | None
    comment: str | None
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Measured:
    """A scorecard: whose, of which task, of how many requests; ``None`` if its folder is gone.

    ``adapter`` is the key of the adapter that was measured, empty for the base alone.
    """

    key: str
    whose: str
    adapter: str
    task: str
    requests: int | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file of a snapshot, and how many interactions and feedback they name."""

    side: str
    count: int
    first_ids: tuple[str, ...]
    interactions: int
    feedback: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows came from: a log file or the archive; ``place`` is ``None`` for what is gone."""

    kind: str
    place: str | None
    row_count: int
    first_line: int | None
    last_line: int | None
    first_ids: list[str]
    first_lines: list[int | None]


@dataclass(frozen=True, slots=True)
class Feedback:
    """The events of one kind of feedback."""

    kind: str
    events: int
    first_ids: list[str]


@dataclass(frozen=True, slots=True)
class Learned:
    """One training: the adapter and all that its rows came from.

    Without ``made_from`` its folder is gone; without ``rows`` its snapshot is.
    """

    adapter: str
    made_from: Mapping[str, Json]
    snapshot: str
    holdout_version: str
    rows: tuple[Rows, ...]
    sources: tuple[Source, ...]
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True)
class Ancestry:
    """All that a version came from; the newest training first, then those that it went on from."""

    version: Version
    aliases: tuple[str, ...]
    changes: tuple[Entry, ...]
    words: tuple[Word, ...]
    outcome: str
    reasons: tuple[str, ...]
    scorecards: tuple[Measured, ...]
    learned: tuple[Learned, ...]


def trace(con: Connection, version: Version, now: aliases.Aliases, roots: Roots) -> Ancestry:
    """Follow a version back.

    Args:
        con: The warehouse.
        version: Which one.
        now: Where the aliases stand.
        roots: Where the workload's outputs lie.
    """
    judged = _read(roots.evidence / version.evidence)
    touched = [
        one
        for one in journal.changes(con, version.name)
        if version.number in (one.change.version, one.change.champion_before)
    ]
    return Ancestry(
        version=version,
        aliases=tuple(one for one in aliases.NAMES if getattr(now, one) == version.number),
        changes=tuple(touched),
        words=tuple(warehouse.read(con, "marts/words", Word, evidence=version.evidence)),
        outcome=str(_table(judged.get("judgement")).get("outcome", "gone")),
        reasons=tuple(str(one) for one in _list(_table(judged.get("judgement")).get("reasons"))),
        scorecards=tuple(_measured(_table(judged.get("subject")), roots.scorecards)),
        learned=tuple(_learned(con, version.adapter, roots)),
    )


def _measured(subject: Mapping[str, Json], root: Path) -> Iterator[Measured]:
    keys = [(subject.get("challenger_scorecard"), "challenger")]
    keys += [(subject.get("opponent_scorecard"), "opponent")]
    keys += [(key, "guard") for key in _list(subject.get("guard_scorecards"))]
    for key, whose in keys:
        if key is None:
            continue
        body = _read(root / str(key))
        path = root / str(key) / "samples.parquet"
        count = pq.read_metadata(path).num_rows if path.exists() else None
        adapter = str(body.get("adapter") or "")
        yield Measured(str(key), whose, adapter, str(body.get("task", "gone")), count)


def _learned(con: Connection, adapter: str, roots: Roots) -> Iterator[Learned]:
    """Go from an adapter to the one that it went on from, and so on."""
    key: str | None = adapter
    while key:
        made_from = _read(roots.adapters / key)
        snapshot = Path(str(made_from.get("snapshot") or "")).name
        folder = roots.snapshots / snapshot
        rows, traced = _rows(folder) if snapshot and folder.is_dir() else ((), None)
        sources, feedback = _sources(con, traced) if traced else ((), ())
        holdout = str(_read(folder).get("holdout_version", ""))
        yield Learned(key, made_from, snapshot, holdout, rows, sources, feedback)
        earlier = made_from.get("warm_start")
        key = Path(str(earlier)).name if earlier else None


def _rows(folder: Path) -> tuple[tuple[Rows, ...], Mapping[str, set[str]]]:
    """Count a snapshot's rows, and gather the ids that they name."""
    told: list[Rows] = []
    traced: dict[str, set[str]] = {"interactions": set(), "feedback": set()}
    for side in SIDES:
        path = folder / f"{side}.parquet"
        if not path.exists():
            continue
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = [name for name in names if name.endswith(("_id", "_ids")) and name != "client_id"]
        table = file.read(columns=wanted)
        named = {
            kind: {one for ids in table[name].to_pylist() for one in ids or ()}
            for kind, name in (("interactions", "interaction_ids"), ("feedback", "feedback_ids"))
        }
        for kind, ids in named.items():
            traced[kind] |= ids
        first = tuple(str(one) for one in table[wanted[0]].slice(0, SHOWN).to_pylist())
        counts = (len(named["interactions"]), len(named["feedback"]))
        told.append(Rows(side, table.num_rows, first, *counts))
    return tuple(told), traced


def _sources(
    con: Connection, traced: Mapping[str, set[str]]
) -> tuple[tuple[Source, ...], tuple[Feedback, ...]]:
    """Look up where the rows came from."""
    pairs = [(kind, one) for kind, ids in traced.items() for one in sorted(ids)]
    columns = {
        "kind": texts(kind for kind, _ in pairs),
        "id": texts(one for _, one in pairs),
    }
    with warehouse.present(con, "traced_rows", columns):
        sources = tuple(warehouse.read(con, "marts/lineage_files", Source))
        feedback = tuple(warehouse.read(con, "marts/lineage_feedback", Feedback))
    return sources, feedback


def _read(folder: Path) -> dict[str, Json]:
    return manifest.read(folder) if manifest.is_finished(folder) else {}


def _table(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
