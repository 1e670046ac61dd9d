"""Write pairs and labels as Parquet in TRL's forms: equal input, equal bytes."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from components.chat import prompt
from components.dataset.example_rows import CHAT, ROW_GROUP
from components.schema import Answer, Message
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
    (row,) = warehouse.read(con, "marts/preference_digests", Digests, workload_id=workload_id)
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
    """Return a pair's row in ``HELD_OUT``, of which ``PAIRS`` takes a part."""
    return {
        "preference_id": record.preference_id,
        "prompt": _prompt(record.messages, record.tools),
        "chosen": _answer(record.chosen),
        "rejected": _answer(record.rejected),
        "request": _request(record.messages, record.tools),
        "source": record.source,
        "group": record.group_id,
        "cluster": record.cluster_id,
        "client_id": record.client_id,
        "language": record.language,
        "weight": record.weight,
        "interaction_ids": record.interaction_ids,
        "feedback_ids": record.feedback_ids,
    }


def label(record: LabelRecord) -> dict[str, object]:
    """Return a labelled answer's row in ``LABELS``."""
    return {
        "label_id": record.label_id,
        "prompt": _prompt(record.messages, record.tools),
        "completion": _answer(record.answer),
        "label": record.is_good,
        "request": _request(record.messages, record.tools),
        "weight": record.weight,
        "interaction_ids": record.interaction_ids,
        "feedback_ids": record.feedback_ids,
    }


def _prompt(messages: str, tools: str) -> list[Message]:
    return prompt.render_prompt_with_tools(json.loads(messages), tools)


def _request(messages: str, tools: str) -> str:
    return f'{{"messages":{messages},"tools":{tools}}}'


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
