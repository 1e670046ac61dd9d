"""Read a snapshot's figures: counts for its card, differences of two snapshots."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq

from components.dataset.example_rows import Lengths
from components.dataset.preference_files import Digests
from components.schema import Answer, Json, Paraphrases
from components.store import warehouse
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection, Location

CARD = "README.md"  # as Hugging Face names the card of a folder of data

SIDES = ("train", "validation", "holdout")

MAX_DAYS = 60  # longer ranges are shown by month


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frozen dataset.

    ``counts`` are the workload's interactions by verdict, including ``kept``; scores are comparable
    only within one ``holdout_version`` (``v<number>-<digest>``). ``clusters`` counts, by side, the
    clusters of rows that are not independent of each other; the largest has ``largest_cluster``
    rows on all sides together.
    """

    path: Path
    key: str
    holdout_version: str
    train_rows: int
    validation_rows: int
    holdout_rows: int
    counts: dict[str, int]
    clusters: dict[str, int]
    largest_cluster: int
    paraphrases: Paraphrases | None = None

    @property
    def sides(self) -> dict[str, int]:
        """The number of rows of each side."""
        rows = (self.train_rows, self.validation_rows, self.holdout_rows)
        return dict(zip(SIDES, rows, strict=True))


@dataclass(frozen=True, slots=True)
class SideCount:
    """A named value's number of examples on each side."""

    name: str
    train: int
    validation: int
    holdout: int

    @property
    def all(self) -> int:
        """The sum over all sides."""
        return self.train + self.validation + self.holdout

    @classmethod
    def total(cls, name: str, counts: Iterable["SideCount"]) -> "SideCount":
        """Return the sums of counts by side."""
        rows = [(count.train, count.validation, count.holdout) for count in counts]
        return cls(name, *map(sum, zip(*rows, strict=True)))


@dataclass(frozen=True, slots=True)
class ClusterCount:
    """Near-duplicate requests: clusters, requests in them, and the largest cluster's size."""

    clusters: int
    requests: int
    largest: int


@dataclass(frozen=True, slots=True)
class RedactionCount:
    """Redactions of one kind: interactions, distinct values and replacements."""

    kind: str
    interactions: int
    distinct_values: int
    replacements: int


@dataclass(frozen=True, slots=True)
class RuleCount:
    """The interactions that a rule matched without dropping them, by disposition."""

    rule: str
    disposition: str
    interactions: int


@dataclass(frozen=True, slots=True)
class FeedbackCount:
    """The number of feedback signals with one outcome."""

    fate: str
    signals: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The card's figures: counts of examples, the most frequent first, ``times`` in order.

    ``lengths`` are by side. ``days`` are the first and the last on which rows were logged, ``None``
    if no log has times.
    """

    snapshot: Snapshot
    clients: list[SideCount]
    sources: list[SideCount]
    labels: list[SideCount]
    feedback: list[SideCount]
    times: list[SideCount]
    days: tuple[str, str] | None
    rules: list[RuleCount]
    redactions: list[RedactionCount]
    fates: list[FeedbackCount]
    preferences: Digests
    clusters: ClusterCount
    lengths: Mapping[str, Lengths]


@dataclass(frozen=True, slots=True)
class _Fact:
    section: str
    fact: str
    train: int
    validation: int
    holdout: int


def read_figures(
    con: Connection,
    workload_id: str,
    snapshot: Snapshot,
    preferences: Digests,
    lengths: Mapping[str, Lengths],
) -> Figures:
    """Read the figures of a workload that was curated and has examples."""
    sections: dict[str, list[SideCount]] = {}
    for fact in warehouse.read(con, "marts/card", _Fact, workload_id=workload_id):
        count = SideCount(fact.fact, fact.train, fact.validation, fact.holdout)
        sections.setdefault(fact.section, []).append(count)
    (clusters,) = warehouse.records(
        con, "marts/card_clusters", ClusterCount, workload_id=workload_id
    )
    days = sorted(sections.get("day", []), key=lambda count: count.name)
    return Figures(
        snapshot=snapshot,
        clients=sections["client"],
        sources=sections.get("source", []),
        labels=sections["label"],
        feedback=sections.get("feedback", []),
        times=_by_month(days) if len(days) > MAX_DAYS else days,
        days=(days[0].name, days[-1].name) if days else None,
        rules=warehouse.records(con, "marts/card_rules", RuleCount, workload_id=workload_id),
        redactions=list(
            warehouse.read(con, "marts/card_redactions", RedactionCount, workload_id=workload_id)
        ),
        fates=warehouse.records(con, "marts/card_fates", FeedbackCount, workload_id=workload_id),
        preferences=preferences,
        clusters=clusters,
        lengths=lengths,
    )


def _by_month(days: list[SideCount]) -> list[SideCount]:
    months = groupby(days, key=lambda day: day.name[:7])
    return [SideCount.total(month, of_month) for month, of_month in months]


RECORD = "learned"  # the adapter manifest's key for the counts of learned and skipped rows


def learned_figures(snapshot: Path) -> dict[str, Json]:
    """Return the snapshot's key, its rows by side, and its training answers by kind.

    Raises:
        FileNotFoundError: The snapshot is unfinished.
    """
    record = SnapshotManifest.read(snapshot)
    answers = pq.read_table(snapshot / "train.parquet", columns=["answer"])["answer"].to_pylist()
    kinds = Counter(answer_kind(Answer.from_json(str(answer))) for answer in answers)
    return {
        "snapshot": record.key,
        "holdout_version": record.holdout_version,
        "rows": {**record.rows},
        "tokens": None if record.tokens is None else {**record.tokens},
        "answers": {name: kinds[name] for name in sorted(kinds)},
    }


def learned_sentences(record: Mapping[str, Json] | None) -> list[str]:
    """Return sentences on learned and skipped rows; empty for older adapters without a record."""
    sentences = (record or {}).get("said")
    return [str(sentence) for sentence in sentences] if isinstance(sentences, list) else []


@dataclass(frozen=True, slots=True)
class _OwnAnswer:
    interaction_id: str
    version: str


def own_reference_sentences(path: Location, snapshot: Path) -> list[str]:
    """Return a sentence on the held-out requests whose reference a version of ours answered.

    Empty without any: nobody corrected such an answer, and no reference values came with it.
    ``path`` is the warehouse.
    """
    file = snapshot / "holdout.parquet"
    columns = ["interaction_ids", "answer", "acceptable", "logged_answer"]
    if not {*columns} <= {*pq.read_schema(file).names}:  # older snapshots
        return []
    rows = pq.read_table(file, columns=columns).to_pylist()
    as_logged = [
        row["interaction_ids"]
        for row in rows
        if row["acceptable"] is None
        and row["logged_answer"]
        and Answer.from_json(row["answer"]) == Answer.from_json(row["logged_answer"])
    ]
    ids = sorted({key for keys in as_logged for key in keys})
    with warehouse.connect(path) as con:
        answers = warehouse.read(con, "marts/own_answers", _OwnAnswer, interaction_ids=ids)
        versions = {answer.interaction_id: answer.version for answer in answers}
    own = [keys for keys in as_logged if all(key in versions for key in keys)]
    if not own:
        return []
    numbers = sorted({versions[key] for keys in own for key in keys}, key=lambda at: (len(at), at))
    named = f"version{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    return [
        f"Of {len(rows)} held-out requests, {len(own)} have as their reference what {named} "
        "answered and nobody corrected. Such a version is right there by definition: as champion "
        "it looks better than it is, and a better challenger looks worse."
    ]


def answer_kind(answer: Answer) -> str:
    """Return whether an answer is text, one call or several, with or without text."""
    if not answer.calls:
        return "text"
    called = "one call" if len(answer.calls) == 1 else "several calls"
    return f"{called} with text" if answer.text.strip() else called


@dataclass(frozen=True, slots=True)
class Change:
    """One example that differs between two snapshots.

    ``kind`` is ``in``, ``out`` or ``changed``; ``why`` is the warehouse's verdict on a row that is
    out, or what changed in a row of both. A side is ``None`` in the snapshot that lacks the row.
    """

    example_id: str
    kind: str
    why: str
    side_before: str | None
    side_after: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences of two snapshots; ``config`` has both values of each changed setting."""

    earlier: SnapshotManifest
    later: SnapshotManifest
    config: dict[str, tuple[Json, Json]]
    changes: list[Change]

    def facts(self) -> dict[str, tuple[Json, Json]]:
        """Return both snapshots' key, holdout version and row counts."""
        before, after = _facts(self.earlier), _facts(self.later)
        return {name: (before.get(name), after.get(name)) for name in {**before, **after}}

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """Count by kind, reason, side before and side after, the most frequent first."""
        counts = Counter(
            (change.kind, change.why, change.side_before or "", change.side_after or "")
            for change in self.changes
        )
        return [
            (*kind, count) for kind, count in sorted(counts.items(), key=lambda x: (-x[1], x[0]))
        ]


def compare(con: Connection, earlier: Path, later: Path) -> Diff:
    """Compare two finished snapshots in any folders.

    The warehouse has the reasons for rows that are out; it may be empty.

    Raises:
        FileNotFoundError: One of them is unfinished, or a file of it is gone.
    """
    before, after = SnapshotManifest.read(earlier), SnapshotManifest.read(later)
    values = {"earlier": _files(earlier, before), "later": _files(later, after)}
    changes = list(warehouse.read(con, "marts/diff", Change, **values))
    old, new = before.config or {}, after.config or {}
    settings = {
        name: (old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    }
    return Diff(before, after, settings, changes)


def _facts(record: SnapshotManifest) -> dict[str, Json]:
    counts = {f"{name} rows": count for name, count in record.rows.items()}
    return {"snapshot": record.key, "holdout": record.holdout_version, **counts}


def _files(folder: Path, record: SnapshotManifest) -> Json:
    paths = [folder / f"{side}.parquet" for side in SIDES if side in record.rows]
    if gone := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"comparing snapshots: {gone[0]} is missing")
    return [str(path) for path in paths]
