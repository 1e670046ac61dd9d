"""What production's answers to a snapshot's holdout took in tokens, as its API bills them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from components import prompt, tokens, warehouse
from components.costs import Usage
from components.schema import Answer, Json, Message

LOGGED = "as the logs say"

MESSAGE_TOKENS = 4
"""What an API adds for each message, and once for the reply, as OpenAI counts its own models
("How to count tokens with Tiktoken", OpenAI Cookbook)."""


@dataclass(frozen=True, slots=True)
class _Said:
    requests: int
    input_tokens: float
    output_tokens: float


def production(
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
        counter = tokens.counter(con, base)
        if counter is None or not rows:
            return None
        asking = sum(counter.count([_sent(row) for row in rows]))
        answering = sum(counter.count([_came_back(row) for row in rows]))
    asking += sum(MESSAGE_TOKENS * (1 + len(json.loads(row["messages"]))) for row in rows)
    return Usage(
        ratio * asking / len(rows), ratio * answering / len(rows), len(rows), counted(ratio)
    )


def counted(ratio: float) -> str:
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
