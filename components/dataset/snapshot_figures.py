"""Read what a snapshot's card says: how its examples are spread, and what was left out."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from components.chat import prompt, token_counts
from components.costs import Usage
from components.dataset.example_rows import Lengths
from components.dataset.preference_files import Digests
from components.schema import Answer, Json, Message
from components.store import warehouse
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection

SIDES = ("train", "validation", "holdout")

MOST_DAYS = 60
"""Longer ranges are shown by month."""


@dataclass(frozen=True, slots=True)
class SideCount:
    """How many examples of each side something is true of."""

    name: str
    train: int
    validation: int
    holdout: int

    @property
    def all(self) -> int:
        """On whichever side."""
        return self.train + self.validation + self.holdout


@dataclass(frozen=True, slots=True)
class ClusterCount:
    """The near-duplicates among the requests: in how many clusters, and the largest's size."""

    clusters: int
    requests: int
    largest: int


@dataclass(frozen=True, slots=True)
class RedactionCount:
    """What was replaced of one kind: in how many interactions, how many values, how often."""

    kind: str
    interactions: int
    distinct_values: int
    replacements: int


@dataclass(frozen=True, slots=True)
class RuleCount:
    """In how many interactions a rule found something, and what was done about it."""

    rule: str
    disposition: str
    interactions: int


@dataclass(frozen=True, slots=True)
class FeedbackCount:
    """How many feedback signals came to what."""

    fate: str
    signals: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What the card shows.

    ``verdicts`` counts the workload's interactions; the others count examples, the most frequent
    first, ``times`` by day or month in order. ``lengths`` is by side, as
    is ``dependent``, the number of clusters of rows that are not independent of each other.
    """

    sides: Mapping[str, int]
    dependent: Mapping[str, int]
    largest_cluster: int
    verdicts: Mapping[str, int]
    clients: list[SideCount]
    sources: list[SideCount]
    labels: list[SideCount]
    feedback: list[SideCount]
    times: list[SideCount]
    days: tuple[str, str]
    found: list[RuleCount]
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
    *,
    verdicts: Mapping[str, int],
    sides: Mapping[str, int],
    dependent: Mapping[str, int],
    largest_cluster: int,
    preferences: Digests,
    lengths: Mapping[str, Lengths],
) -> Figures:
    """Read the figures of a workload that was curated and has examples."""
    found: dict[str, list[SideCount]] = {}
    for fact in warehouse.read(con, "marts/card", _Fact, workload_id=workload_id):
        count = SideCount(fact.fact, fact.train, fact.validation, fact.holdout)
        found.setdefault(fact.section, []).append(count)
    (clusters,) = warehouse.read(con, "marts/card_clusters", ClusterCount, workload_id=workload_id)
    days = sorted(found["day"], key=lambda count: count.name)
    return Figures(
        sides=sides,
        dependent=dependent,
        largest_cluster=largest_cluster,
        verdicts=verdicts,
        clients=found["client"],
        sources=found.get("source", []),
        labels=found["label"],
        feedback=found.get("feedback", []),
        times=_by_month(days) if len(days) > MOST_DAYS else days,
        days=(days[0].name, days[-1].name),
        found=list(warehouse.read(con, "marts/card_rules", RuleCount, workload_id=workload_id)),
        redactions=list(
            warehouse.read(con, "marts/card_redactions", RedactionCount, workload_id=workload_id)
        ),
        fates=list(warehouse.read(con, "marts/card_fates", FeedbackCount, workload_id=workload_id)),
        preferences=preferences,
        clusters=clusters,
        lengths=lengths,
    )


def _by_month(days: list[SideCount]) -> list[SideCount]:
    months: dict[str, SideCount] = {}
    for day in days:
        name = day.name[:7]
        known = months.get(name, SideCount(name, 0, 0, 0))
        months[name] = SideCount(
            name,
            known.train + day.train,
            known.validation + day.validation,
            known.holdout + day.holdout,
        )
    return list(months.values())


RECORD = "learned"
"""Under this key an adapter's manifest says how many rows were learned, and how many were not."""


def learned_figures(snapshot: Path) -> dict[str, Json]:
    """Give the snapshot's key, its rows by side, and what kinds of answers are trained on.

    Raises:
        FileNotFoundError: The snapshot is unfinished.
    """
    record = SnapshotManifest.read(snapshot)
    answers = pq.read_table(snapshot / "train.parquet", columns=["answer"])["answer"].to_pylist()
    kinds = Counter(answer_kind(Answer.from_json(str(one))) for one in answers)
    return {
        "snapshot": record.key,
        "holdout_version": record.holdout_version,
        "rows": {**record.rows},
        "tokens": None if record.tokens is None else {**record.tokens},
        "answers": {name: kinds[name] for name in sorted(kinds)},
    }


def learned_sentences(record: Mapping[str, Json] | None) -> list[str]:
    """Return in sentences what became of the rows; an older adapter's manifest has no record."""
    sentences = (record or {}).get("said")
    return [str(one) for one in sentences] if isinstance(sentences, list) else []


def answer_kind(answer: Answer) -> str:
    """Name the kind of an answer."""
    if not answer.calls:
        return "text"
    called = "one call" if len(answer.calls) == 1 else "several calls"
    return f"{called} with text" if answer.text.strip() else called


LOGGED = "as the logs say"

MESSAGE_TOKENS = 4
"""What an API adds for each message, and once for the reply, as OpenAI counts its own models
("How to count tokens with Tiktoken", OpenAI Cookbook)."""


@dataclass(frozen=True, slots=True)
class _Said:
    requests: int
    input_tokens: float
    output_tokens: float


def production_usage(
    path: Path, scratch: Path, snapshot: Path, base: Path | None, ratio: float = 1.0
) -> Usage | None:
    """Return the mean tokens of the logged responses, else of the requests as they were sent.

    What was sent is the text of each message and the JSON of the tools with their schemas; what
    came back is the logged answer, calls as JSON, or the reference where none was kept. Images are
    not counted.

    Args:
        path: The warehouse, held to read what was logged and not while tokens are counted.
        scratch: Where DuckDB puts what does not fit into memory.
        snapshot: A finished snapshot.
        base: The base's folder, whose tokenizer counts where the logs hold no ``usage``.
        ratio: Tokens that production bills for each of the base's.

    Returns:
        ``None`` where neither the logs nor a tokenizer has counts.
    """
    names = pq.read_schema(snapshot / "holdout.parquet").names
    columns = ["interaction_ids", "messages", "tools", "answer", "logged_answer"]
    rows = pq.read_table(
        snapshot / "holdout.parquet", columns=[one for one in columns if one in names]
    ).to_pylist()
    asked = sorted({one for row in rows for one in row["interaction_ids"]})
    with warehouse.connect(path) as con:
        (said,) = warehouse.read(con, "marts/production_usage", _Said, interaction_ids=asked)
    if said.requests:
        return Usage(said.input_tokens, said.output_tokens, said.requests, LOGGED)
    with warehouse.in_memory(scratch) as con:
        counter = token_counts.counter(con, base)
        if counter is None or not rows:
            return None
        asking = sum(counter.count([_sent(row) for row in rows]))
        answering = sum(counter.count([_came_back(row) for row in rows]))
    asking += sum(MESSAGE_TOKENS * (1 + len(json.loads(row["messages"]))) for row in rows)
    return Usage(
        ratio * asking / len(rows), ratio * answering / len(rows), len(rows), describe_count(ratio)
    )


def describe_count(ratio: float) -> str:
    """Say how tokens are counted where the logs don't say."""
    return (
        "texts and the JSON of tools and calls, counted by the base's tokenizer, with "
        f"{MESSAGE_TOKENS} tokens for each message, x {ratio:g} (cost.production_token_ratio), "
        "since the logs hold no usage"
    )


def _sent(row: dict[str, str]) -> list[Message]:
    """List the texts that were sent: what messages say, the calls in them, the tools offered."""
    messages = cast("list[dict[str, Json]]", json.loads(row["messages"]))
    calls = [message["tool_calls"] for message in messages if message.get("tool_calls")]
    tools: list[Json] = json.loads(row["tools"])
    return _texts([*map(prompt.text_of, messages), *map(_as_sent, [*calls, *tools])])


def _came_back(row: dict[str, str]) -> list[Message]:
    answer = Answer.from_json(row.get("logged_answer") or row["answer"])
    calls = [_as_sent({"name": one.name, "arguments": one.arguments}) for one in answer.calls]
    return _texts([answer.text, *calls])


def _as_sent(value: Json) -> str:
    """Write JSON as clients send it: without blanks, every script as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _texts(texts: Iterable[str]) -> list[Message]:
    return [{"role": "user", "content": text} for text in texts if text]


@dataclass(frozen=True, slots=True)
class Change:
    """One example that two snapshots do not have alike.

    ``kind`` is ``in``, ``out`` or ``changed``; ``why`` is what the warehouse says of a row that
    is out, what changed of one that is in both. A side is ``None`` where it is not.
    """

    example_id: str
    kind: str
    why: str
    side_before: str | None
    side_after: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """What lies between two snapshots of a workload; ``config`` holds each setting's two values."""

    earlier: SnapshotManifest
    later: SnapshotManifest
    config: dict[str, tuple[Json, Json]]
    changes: list[Change]

    def facts(self) -> dict[str, tuple[Json, Json]]:
        """Give what each of the two says of itself: key, holdout version, rows of each kind."""
        one, other = _told(self.earlier), _told(self.later)
        return {name: (one.get(name), other.get(name)) for name in {**one, **other}}

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """Count by kind, reason, side before and side after, the most frequent first."""
        found = Counter(
            (one.kind, one.why, one.side_before or "", one.side_after or "") for one in self.changes
        )
        return [
            (*kind, count) for kind, count in sorted(found.items(), key=lambda x: (-x[1], x[0]))
        ]


def compare(con: Connection, earlier: Path, later: Path) -> Diff:
    """Compare two finished snapshots, wherever they lie.

    Args:
        con: The warehouse, which says why a row is out; an empty one knows nothing.
        earlier: A snapshot folder.
        later: Another one.

    Raises:
        FileNotFoundError: One of them is unfinished, or a file of it is gone.
    """
    before, after = SnapshotManifest.read(earlier), SnapshotManifest.read(later)
    values = {"earlier": _files(earlier, before), "later": _files(later, after)}
    changes = list(warehouse.read(con, "marts/diff", Change, **values))
    return Diff(before, after, _settings(before, after), changes)


def _told(record: SnapshotManifest) -> dict[str, Json]:
    counts = {f"{name} rows": count for name, count in record.rows.items()}
    return {"snapshot": record.key, "holdout": record.holdout_version, **counts}


def _files(folder: Path, record: SnapshotManifest) -> Json:
    paths = [folder / f"{side}.parquet" for side in SIDES if side in record.rows]
    if gone := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"comparing snapshots: {gone[0]} is gone")
    return [str(path) for path in paths]


def _settings(before: SnapshotManifest, after: SnapshotManifest) -> dict[str, tuple[Json, Json]]:
    one, other = before.config or {}, after.config or {}
    names: Sequence[str] = sorted({*one, *other})
    return {
        name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    }
