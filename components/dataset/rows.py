"""Write examples as Parquet rows for training and evaluation: equal input, equal bytes."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components import prompt
from components.schema import Answer, Json

ROW_GROUP = 2048

CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("prompt", CHAT),
        ("completion", CHAT),
        ("messages", pa.string()),
        ("tools", pa.string()),
        ("answer", pa.string()),
        ("acceptable", pa.string()),
        ("weight", pa.float64()),
        ("group", pa.string()),
        ("label", pa.string()),
        ("client_id", pa.string()),
        ("logged_at", pa.timestamp("us", tz="UTC")),
        ("interaction_ids", pa.list_(pa.string())),
        ("feedback_ids", pa.list_(pa.string())),
    ]
)
"""``prompt`` and ``completion`` are the rendered text of TRL's conversational form; ``messages``,
``tools``, ``answer`` and ``acceptable`` are JSON, as they were logged or corrected."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of ``curated.examples``; ``messages``, ``tools``, ``acceptable`` are JSON text."""

    example_id: str
    messages: str
    tools: str
    answer: str
    acceptable: str | None
    weight: float
    group_id: str
    label: str
    client_id: str
    logged_at: datetime
    interaction_ids: list[str]
    feedback_ids: list[str]


def write(path: Path, examples: Iterable[Example]) -> None:
    """Write the examples in the order given, batch by batch."""
    remaining = iter(examples)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while batch := list(islice(remaining, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist([render(one) for one in batch], SCHEMA))


def render(example: Example) -> dict[str, object]:
    """Give an example's row in ``SCHEMA``; its texts are those that a model will see."""
    answer = Answer.from_json(example.answer)
    messages: list[dict[str, Json]] = json.loads(example.messages)
    tools: list[dict[str, Json]] = json.loads(example.tools)
    return {
        "example_id": example.example_id,
        "prompt": prompt.render_prompt(messages, tools),
        "completion": [{"role": "assistant", "content": prompt.render_answer(answer)}],
        "messages": example.messages,
        "tools": example.tools,
        "answer": answer.to_json(),
        "acceptable": example.acceptable,
        "weight": example.weight,
        "group": example.group_id,
        "label": example.label,
        "client_id": example.client_id,
        "logged_at": example.logged_at,
        "interaction_ids": example.interaction_ids,
        "feedback_ids": example.feedback_ids,
    }
