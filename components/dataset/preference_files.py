"""Write pairs and labels as Parquet in TRL's forms: equal input, equal bytes."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from components.chat import prompt
from components.dataset.example_rows import CHAT, ROW_GROUP
from components.schema import Answer, Message, parse_json
from components.store import warehouse
from components.store.warehouse import Connection

IDS = pa.list_(pa.string())

PAIRS = pa.schema(
    [
        ("preference_id", pa.string()),
        ("prompt", CHAT),
        ("chosen", CHAT),
        ("rejected", CHAT),
        ("request", pa.string()),
        ("source", pa.string()),
        ("weight", pa.float64()),
        ("interaction_ids", IDS),
        ("feedback_ids", IDS),
    ]
)
"""``prompt``, ``chosen``, ``rejected`` are rendered text, including tools; ``request`` is the JSON
of messages and tools. Columns named ``messages`` and ``tools`` would be rendered again by TRL."""

HELD_OUT = pa.schema(
    [
        *PAIRS,
        ("group", pa.string()),
        ("cluster", pa.string()),
        ("client_id", pa.string()),
        ("language", pa.string()),
    ]
)
"""The held-out pairs, with the columns for clusters and slices."""

LABELS = pa.schema(
    [
        ("label_id", pa.string()),
        ("prompt", CHAT),
        ("completion", CHAT),
        ("label", pa.bool_()),
        ("request", pa.string()),
        ("weight", pa.float64()),
        ("interaction_ids", IDS),
        ("feedback_ids", IDS),
    ]
)


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One row of ``curated.preferences``; ``messages`` to ``rejected`` are JSON text."""

    preference_id: str
    source: str
    group_id: str | None
    cluster_id: str
    client_id: str | None
    language: str | None
    messages: str
    tools: str
    chosen: str
    rejected: str
    weight: float
    interaction_ids: list[str]
    feedback_ids: list[str]


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One row of ``curated.labels``; ``messages``, ``tools`` and ``answer`` are JSON text."""

    label_id: str
    messages: str
    tools: str
    answer: str
    is_good: bool
    weight: float
    interaction_ids: list[str]
    feedback_ids: list[str]


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests and row counts of a workload's pairs and labels.

    ``pairs`` are those to learn, ``held_pairs`` those to measure on. ``longer_won`` and
    ``shorter_won`` count the former by the chosen answer's length, since preferences are often
    biased towards length.
    """

    pairs_digest: str
    labels_digest: str
    pairs: int
    longer_won: int
    shorter_won: int
    held_pairs: int
    labels: int


PreferenceFileRow = TypeVar("PreferenceFileRow")


def digests(con: Connection, workload_id: str) -> Digests:
    """Return the digests of a curated workload's pairs and labels."""
    (row,) = warehouse.records(con, "marts/preference_digests", Digests, workload_id=workload_id)
    return row


def write(con: Connection, folder: Path, workload_id: str) -> None:
    """Write the files of a curated workload into a snapshot's folder, empty without feedback.

    ``preferences.parquet`` is for DPO and similar objectives, ``labels.parquet`` for KTO.
    ``holdout_preferences.parquet`` has the held-out pairs, which are never learned.
    """
    for name, side, schema in (
        ("preferences", "train", PAIRS),
        ("holdout_preferences", "holdout", HELD_OUT),
    ):
        pairs = warehouse.read(
            con, "marts/preferences", PairRecord, workload_id=workload_id, side=side
        )
        _write(folder / f"{name}.parquet", schema, pairs, pair)
    labels = warehouse.read(con, "marts/labels", LabelRecord, workload_id=workload_id)
    _write(folder / "labels.parquet", LABELS, labels, label)


def pair(record: PairRecord) -> dict[str, object]:
    """Return a pair's values for ``HELD_OUT`` and ``PAIRS``."""
    return {
        **_with_request(record),
        "chosen": _answer(record.chosen),
        "rejected": _answer(record.rejected),
        "group": record.group_id,
        "cluster": record.cluster_id,
    }


def label(record: LabelRecord) -> dict[str, object]:
    """Return a labelled answer's values for ``LABELS``."""
    completion = _answer(record.answer)
    return {**_with_request(record), "completion": completion, "label": record.is_good}


def _with_request(record: PairRecord | LabelRecord) -> dict[str, object]:
    messages, tools = record.messages, record.tools
    return {
        **asdict(record),
        "prompt": prompt.render_prompt_with_tools(parse_json(messages), tools),
        "request": f'{{"messages":{messages},"tools":{tools}}}',
    }


def _answer(answer: str) -> list[Message]:
    return [{"role": "assistant", "content": prompt.render_answer(Answer.from_json(answer))}]


def _write(
    path: Path,
    schema: object,
    rows: Iterable[PreferenceFileRow],
    render: Callable[[PreferenceFileRow], dict[str, object]],
) -> None:
    remaining = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(remaining, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist([render(row) for row in batch], schema))
