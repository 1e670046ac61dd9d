"""Trace a version to its decision, scorecards, snapshots, rows and log files."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from components.register import registry, version_tags
from components.register.registry import Version
from components.release import release_state
from components.release.release_state import RecordedChange
from components.schema import Json
from components.store import output_folders, warehouse
from components.store.manifest import (
    AdapterManifest,
    EvidenceManifest,
    Manifest,
    ScorecardManifest,
    SnapshotManifest,
    SubjectRecord,
)
from components.store.warehouse import Connection

SHOWN = 3  # ids shown of each kind of row

SIDES = ("train", "validation", "holdout", "preferences", "labels")
"""The files of a snapshot, in the order of the report."""

Kind = TypeVar("Kind", bound=Manifest)
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class OutputRoots:
    """The roots of a workload's outputs."""

    evidence: Path
    scorecards: Path
    adapters: Path
    snapshots: Path


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A person's decision on the evidence."""

    decision: str
    approver: str | None
    comment: str | None
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class ScorecardSummary:
    """A scorecard's model, task and number of requests, ``None`` if its folder is gone.

    ``adapter`` is the key of the measured adapter, empty for the base alone.
    """

    key: str
    whose: str
    adapter: str
    task: str
    requests: int | None


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The rows of one file of a snapshot, and the interactions and feedback that they name."""

    side: str
    row_count: int
    first_ids: list[str]
    interactions: int
    feedback: int


@dataclass(frozen=True, slots=True)
class RowSource:
    """The source of rows: a log file or the archive; ``place`` is ``None`` if it is gone."""

    kind: str
    place: str | None
    row_count: int
    first_line: int | None
    last_line: int | None
    first_ids: list[str]
    first_lines: list[int | None]


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """The events of one kind of feedback."""

    kind: str
    events: int
    first_ids: list[str]


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """One training: the adapter and the sources of its rows.

    ``made_from`` is ``None`` if its folder is gone; ``rows`` is empty if its snapshot is.
    """

    adapter: str
    made_from: AdapterManifest | None
    snapshot: str
    holdout_version: str
    rows: tuple[RowCounts, ...]
    sources: tuple[RowSource, ...]
    feedback: tuple[FeedbackCounts, ...]


@dataclass(frozen=True, slots=True)
class Ancestry:
    """A version's inputs; the newest training first, then those that it was warm-started from."""

    version: Version
    aliases: tuple[str, ...]
    changes: tuple[RecordedChange, ...]
    words: tuple[DecisionRecord, ...]
    outcome: str
    reasons: tuple[str, ...]
    scorecards: tuple[ScorecardSummary, ...]
    learned: tuple[TrainingRecord, ...]


def trace_ancestry(
    con: Connection, version: Version, now: registry.Aliases, roots: OutputRoots
) -> Ancestry:
    """Trace a version back to its inputs; ``now`` are the current aliases."""
    judged = _finished(EvidenceManifest, roots.evidence / version.evidence)
    touched = [
        recorded
        for recorded in release_state.read_state(con, version.name).changes
        if version.number in (recorded.change.version, recorded.change.champion_before)
    ]
    return Ancestry(
        version=version,
        aliases=tuple(a for a in version_tags.ALIASES if getattr(now, a) == version.number),
        changes=tuple(touched),
        words=tuple(
            warehouse.records(con, "marts/words", DecisionRecord, evidence=version.evidence)
        ),
        outcome=judged.judgement.outcome if judged else "gone",
        reasons=judged.judgement.reasons if judged else (),
        scorecards=tuple(_measured(con, judged.subject, roots.scorecards)) if judged else (),
        learned=tuple(_learned(con, version.adapter, roots)),
    )


def _measured(con: Connection, subject: SubjectRecord, root: Path) -> Iterator[ScorecardSummary]:
    keys = [(subject.challenger_scorecard, "challenger"), (subject.opponent_scorecard, "opponent")]
    keys += [(key, "guard") for key in subject.guard_scorecards]
    for key, whose in keys:
        card = _finished(ScorecardManifest, root / key)
        path = root / key / "samples.parquet"
        count = warehouse.count_parquet_rows(con, path) if path.exists() else None
        adapter, task = (card.adapter or "", card.task) if card else ("", "gone")
        yield ScorecardSummary(key, whose, adapter, task, count)


def _learned(con: Connection, adapter: str, roots: OutputRoots) -> Iterator[TrainingRecord]:
    # From a tag in MLflow, and from files: neither may lead out of the home, or in a circle.
    key: str | None = Path(adapter).name
    passed = set[str]()
    while key and key not in passed:
        passed.add(key)
        made_from = _finished(AdapterManifest, roots.adapters / key)
        snapshot = Path(made_from.snapshot).name if made_from else ""
        folder = roots.snapshots / snapshot
        files = [folder / f"{side}.parquet" for side in SIDES] if snapshot else []
        paths: list[Json] = [str(path) for path in files if path.exists()]
        frozen = _finished(SnapshotManifest, folder) if snapshot else None
        holdout = frozen.holdout_version if frozen else ""
        yield TrainingRecord(
            key,
            made_from,
            snapshot,
            holdout,
            rows=_read(con, "rows", RowCounts, paths, shown=SHOWN),
            sources=_read(con, "files", RowSource, paths),
            feedback=_read(con, "feedback", FeedbackCounts, paths),
        )
        earlier = made_from.warm_start if made_from else None
        key = Path(earlier).name if earlier else None


def _read(
    con: Connection, mart: str, record: type[Record], paths: list[Json], **values: int
) -> tuple[Record, ...]:
    if not paths:
        return ()
    return tuple(warehouse.read(con, f"marts/lineage_{mart}", record, paths=paths, **values))


def _finished(kind: type[Kind], folder: Path) -> Kind | None:
    return kind.read(folder) if output_folders.fetch(folder) else None
