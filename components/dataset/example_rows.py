"""Write examples as Parquet rows for training and evaluation: equal input, equal bytes."""

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq

from components.chat import prompt
from components.chat.token_counts import Counter
from components.schema import Answer, Json, Message

ROW_GROUP = 2048

Staying: TypeAlias = Callable[[str], list[str]]
"""Returns the values in an answer that redaction recognises but is configured to keep."""

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
        ("logged_answer", pa.string()),
        ("weight", pa.float64()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("group", pa.string()),
        ("cluster", pa.string()),
        ("label", pa.string()),
        ("client_id", pa.string()),
        ("language", pa.string()),
        ("logged_at", pa.timestamp("us", tz="UTC")),
        ("interaction_ids", pa.list_(pa.string())),
        ("feedback_ids", pa.list_(pa.string())),
        ("secrets", pa.list_(pa.string())),
    ]
)
"""``prompt`` and ``completion`` are the rendered text of TRL's conversational form; ``messages``,
``tools``, ``answer`` and ``acceptable`` are JSON, as they were logged or corrected;
``logged_answer`` is what production answered, on the holdout only; the tokens are those of the
texts, without a chat template's marks, and null where nothing could count them. Rows of one
``cluster`` are not independent of each other: they share a conversation or another tie, directly or
through others; it is named by its smallest ``example_id`` in the file. ``language`` (ISO 639) is
that of the users' messages, null if unknown. ``secrets`` are the values in the answer that
redaction recognises but is configured to keep."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of ``curated.examples``; requests and answers are JSON text."""

    example_id: str
    messages: str
    tools: str
    answer: str
    acceptable: str | None
    weight: float
    group_id: str
    cluster_id: str
    label: str
    language: str | None
    client_id: str
    logged_at: datetime
    interaction_ids: list[str]
    feedback_ids: list[str]
    logged_answer: str | None = None


_FIELDS = [field.name for field in fields(Example)]  # ``asdict`` would copy every id


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each row's prompt and answer; empty if not counted."""

    prompts: "array[int]" = field(default_factory=lambda: array("l"))
    answers: "array[int]" = field(default_factory=lambda: array("l"))


def write(
    path: Path, examples: Iterable[Example], counter: Counter | None, staying: Staying | None = None
) -> Lengths:
    """Write the examples in their order, batch by batch, and return their lengths."""
    lengths, remaining = Lengths(), iter(examples)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while batch := list(islice(remaining, ROW_GROUP)):
            rendered = [render(example, staying) for example in batch]
            if counter is not None:
                _count(rendered, counter, lengths)
            writer.write_table(pa.Table.from_pylist(rendered, SCHEMA))
    return lengths


def _count(rows: Sequence[dict[str, object]], counter: Counter, lengths: Lengths) -> None:
    """Set each row's token counts and append them to the lengths."""
    for column, count_column, counts in (
        ("prompt", "prompt_tokens", lengths.prompts),
        ("completion", "answer_tokens", lengths.answers),
    ):
        tokens = counter.count([cast("list[Message]", row[column]) for row in rows])
        for row, count in zip(rows, tokens, strict=True):
            row[count_column] = count
        counts.extend(tokens)


def render(example: Example, staying: Staying | None = None) -> dict[str, object]:
    """Return an example's values for ``SCHEMA``; its texts are rendered as a model reads them."""
    answer = Answer.from_json(example.answer)
    messages: list[dict[str, Json]] = json.loads(example.messages)
    text = prompt.render_answer(answer)
    return {
        **{name: getattr(example, name) for name in _FIELDS},
        "prompt": prompt.render_prompt_with_tools(messages, example.tools),
        "completion": [{"role": "assistant", "content": text}],
        "answer": answer.to_json(),
        "group": example.group_id,
        "cluster": example.cluster_id,
        "secrets": staying(text) if staying else [],
    }
