"""Write examples as Parquet rows for training and evaluation: equal input, equal bytes."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from components import gc_pause
from components.chat import prompt
from components.chat.token_counts import Counter
from components.schema import Answer, Message, parse_json
from components.store.arrow import ArrowBatch

ROW_GROUP = 2048

Staying: TypeAlias = Callable[[str], list[str]]
"""Returns the values in an answer that redaction recognises but is configured to keep."""

TEXTS = pa.list_(pa.string())

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
        ("interaction_ids", TEXTS),
        ("feedback_ids", TEXTS),
        ("secrets", TEXTS),
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


RESPONSE_SCHEMA = pa.field("response_schema", pa.string())
"""The JSON Schema that a request wants its answer in, empty where it has none; only in files with
such a request."""

COPIED = {
    name: {"group": "group_id", "cluster": "cluster_id"}.get(name, name)
    for name in SCHEMA.names
    if name not in ("prompt", "completion", "answer", "prompt_tokens", "answer_tokens", "secrets")
}
"""The columns that are those of ``marts/snapshot``, by its names."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each row's prompt and answer; empty if not counted."""

    prompts: "array[int]" = field(default_factory=lambda: array("l"))
    answers: "array[int]" = field(default_factory=lambda: array("l"))


def write(
    path: Path,
    batches: Iterable[ArrowBatch],
    counter: Counter | None,
    staying: Staying | None = None,
    schemas: Mapping[str, str] | None = None,
) -> Lengths:
    """Write the rows of ``marts/snapshot`` in their order, and return their lengths.

    ``schemas`` are the JSON Schemas of answers by ``example_id``.
    """
    lengths = Lengths()
    schema = SCHEMA.append(RESPONSE_SCHEMA) if schemas else SCHEMA
    with (
        gc_pause.released(),
        gc_pause.paused(),
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        for group in _row_groups(batches):
            rows = _rendered(group, counter, staying)
            if schemas:
                own = [schemas.get(name, "") for name in rows["example_id"].to_pylist()]
                rows = rows.append_column(RESPONSE_SCHEMA, pa.array(own, pa.string()))
            writer.write_table(rows)
            if counter is not None:
                lengths.prompts.extend(rows["prompt_tokens"].to_pylist())
                lengths.answers.extend(rows["answer_tokens"].to_pylist())
    return lengths


def _row_groups(batches: Iterable[ArrowBatch]) -> Iterator[Any]:
    """Yield tables of ``ROW_GROUP`` rows, the last of fewer, whatever the batches' sizes."""
    waiting: list[ArrowBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        if rows >= ROW_GROUP:
            table = pa.Table.from_batches(waiting)
            whole = rows - rows % ROW_GROUP
            for start in range(0, whole, ROW_GROUP):
                yield table.slice(start, ROW_GROUP)
            waiting, rows = table.slice(whole).to_batches(), rows - whole
    if rows:
        yield pa.Table.from_batches(waiting)


def _rendered(
    group: Any,  # noqa: ANN401 - pyarrow has no types
    counter: Counter | None,
    staying: Staying | None,
) -> Any:  # noqa: ANN401
    """Return the rows with their texts as a model reads them."""
    whole = group.combine_chunks()  # equal pages, whatever the batches' sizes
    requests, tools = (whole[name].to_numpy().tolist() for name in ("messages", "tools"))
    prompts = [
        prompt.render_prompt_with_tools(parse_json(request), offered)
        for request, offered in zip(requests, tools, strict=True)
    ]
    logged = whole["answer"].combine_chunks().dictionary_encode()  # many answers are equal
    answers = [Answer.from_json(answer) for answer in logged.dictionary.to_pylist()]
    texts = [prompt.render_answer(answer) for answer in answers]
    completions: list[list[Message]] = [[{"role": "assistant", "content": text}] for text in texts]
    of_answers = {
        "completion": _chats(completions),
        "answer": pa.array([answer.to_json() for answer in answers], pa.string()),
        "answer_tokens": _count(completions, counter),
        "secrets": pa.array([staying(text) if staying else [] for text in texts], TEXTS),
    }
    columns = {
        "prompt": _chats(prompts),
        "prompt_tokens": _count(prompts, counter),
        **{name: column.take(logged.indices) for name, column in of_answers.items()},
    }
    return pa.table(
        [
            whole[COPIED[name]].cast(kind) if name in COPIED else columns[name]
            for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)
        ],
        schema=SCHEMA,
    )


def _chats(conversations: Sequence[Sequence[Message]]) -> Any:  # noqa: ANN401
    # By its parts: `pyarrow.array` takes twice as long to look into each message.
    every = [message for messages in conversations for message in messages]
    roles = pa.array([message["role"] for message in every], pa.string())
    contents = pa.array([message["content"] for message in every], pa.string())
    ends = accumulate(map(len, conversations), initial=0)
    turns = pa.StructArray.from_arrays([roles, contents], fields=[*CHAT.value_type])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), turns, type=CHAT)


def _count(conversations: Sequence[Sequence[Message]], counter: Counter | None) -> Any:  # noqa: ANN401
    """Return the tokens of each conversation, null without a counter."""
    return pa.array(
        counter.count(conversations) if counter else [None] * len(conversations), pa.int32()
    )
