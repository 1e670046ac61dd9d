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
"""``prompt``, ``chosen``, ``rejected`` are rendered text, tools and all; ``request`` is the JSON of
messages and tools. Columns of those names TRL would take for its own and render once more."""

HELD_OUT = pa.schema(
    [
        *PAIRS,
        ("group", pa.string()),
        ("cluster", pa.string()),
        ("client_id", pa.string()),
        ("language", pa.string()),
    ]
)
"""The pairs that are measured on say what they are not independent of, and where they belong."""

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
    """What the two files of a workload would hold: digests, and how many rows.

    ``pairs`` are those to learn, ``held_pairs`` those to measure on. ``longer_won`` and
    ``shorter_won`` count the former by which answer people chose: much of what they seem to prefer
    may be length.
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
    """Give the digests of a curated workload's pairs and labels."""
    (found,) = warehouse.read(con, "marts/preference_digests", Digests, workload_id=workload_id)
    return found


def write(con: Connection, folder: Path, workload_id: str) -> None:
    """Write the files of a curated workload into a snapshot's folder."""
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


def pair(one: PairRecord) -> dict[str, object]:
    """Give a pair's row in ``PAIRS`` or ``HELD_OUT``."""
    return {
        "preference_id": one.preference_id,
        "prompt": _prompt(one.messages, one.tools),
        "chosen": _answer(one.chosen),
        "rejected": _answer(one.rejected),
        "request": _request(one.messages, one.tools),
        "source": one.source,
        "group": one.group_id,
        "cluster": one.cluster_id,
        "client_id": one.client_id,
        "language": one.language,
        "weight": one.weight,
        "interaction_ids": one.interaction_ids,
        "feedback_ids": one.feedback_ids,
    }


def label(one: LabelRecord) -> dict[str, object]:
    """Give a labelled answer's row in ``LABELS``."""
    return {
        "label_id": one.label_id,
        "prompt": _prompt(one.messages, one.tools),
        "completion": _answer(one.answer),
        "label": one.is_good,
        "request": _request(one.messages, one.tools),
        "weight": one.weight,
        "interaction_ids": one.interaction_ids,
        "feedback_ids": one.feedback_ids,
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
            writer.write_table(pa.Table.from_pylist([render(one) for one in batch], schema))
