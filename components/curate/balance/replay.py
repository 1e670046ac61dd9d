"""Read rows of other sets to train on, and keep those away that would spoil the test."""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from components import manifest
from components.curate import candidate as candidates
from components.curate.balance import choosing
from components.curate.balance.choosing import Budget
from components.schema import Answer, Json

PREFIX = "replay-"
"""How the ids of replayed rows begin."""

COLUMNS = ["messages", "tools", "answer"]


class ReplayError(ValueError):
    """A source of replayed rows that can't be read."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One row of another set: a request, its tools and the answer to it, as JSON text."""

    replay_id: str
    messages: str
    tools: str
    message: str


def read(sources: Sequence[Path]) -> list[Replayed]:
    """Read the rows of all sources, each once, in the order in which they are taken.

    Raises:
        ReplayError: A source is not there, or has not the form of one.
    """
    found = {row.replay_id: row for source in sources for row in _read(source)}
    return [found[replay_id] for replay_id in sorted(found, key=choosing.place)]


def request_key(messages: str, tools: str) -> str:
    """Name a request by its content, however its JSON is written."""
    return manifest.digest([candidates.loads(messages), candidates.loads(tools)])


def _read(source: Path) -> Iterator[Replayed]:
    try:
        if source.is_dir():
            yield from _parquet(source / "train.parquet")
        elif source.suffix == ".parquet":
            yield from _parquet(source)
        else:
            yield from _lines(source)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ReplayError(
            f"replaying {source}: {error}; wants a snapshot folder, a Parquet file with the "
            f"columns {', '.join(COLUMNS)}, or JSONL of messages that end in the assistant's"
        ) from error


def _parquet(path: Path) -> Iterator[Replayed]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=COLUMNS):
            for row in batch.to_pylist():
                yield _replayed(row["messages"], row["tools"], _message(row["answer"]))


def _lines(path: Path) -> Iterator[Replayed]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in filter(str.strip, file):
            row = cast("dict[str, Json]", json.loads(line))
            match row["messages"]:
                case [*messages, {"role": "assistant"} as message] if messages:
                    texts = (messages, row.get("tools") or [], message)
                    yield _replayed(*(json.dumps(one, ensure_ascii=False) for one in texts))
                case _:
                    raise ValueError(f"messages {str(row['messages'])[:80]!r} end in no answer")


def _message(answer: str) -> str:
    """Write an answer of a snapshot as the assistant message that it was."""
    read = Answer.from_json(answer)
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in read.calls
    ]
    message = {"role": "assistant", "content": read.text or None}
    return json.dumps(message | ({"tool_calls": calls} if calls else {}), ensure_ascii=False)


def _replayed(messages: str, tools: str, message: str) -> Replayed:
    key = manifest.digest([messages, tools, message])
    return Replayed(PREFIX + key, messages, tools, message)


@dataclass(frozen=True, slots=True)
class SpokenFor:
    """What no replayed row may share with the workload's own.

    ``requests`` are all that it has, by ``request_key``; ``ties`` those of the rows that are tested
    or validated on; ``tools`` the names of those that such rows offer, where it is split by them.
    """

    requests: frozenset[str]
    ties: frozenset[str]
    tools: frozenset[str]

    def forbids(
        self, messages: str, tools: str, ties: Sequence[str], tool_names: Sequence[str]
    ) -> bool:
        """Tell whether a row shares any of it."""
        return (
            not self.ties.isdisjoint(ties)
            or not self.tools.isdisjoint(tool_names)
            or request_key(messages, tools) in self.requests
        )


def reserve(tokens: Sequence[int], share: float, budget: Budget) -> int:
    """Count the rows, the first ones, that have room in their share of the budget.

    Args:
        tokens: The tokens of each row; zeros where no budget counts them.
        share: Of the budget, for replayed rows.
        budget: Of all that is trained on.
    """
    rows = len(tokens) if budget.rows is None else min(len(tokens), int(budget.rows * share))
    if budget.tokens is None:
        return rows
    room = budget.tokens * share
    return sum(1 for total in accumulate(tokens[:rows]) if total <= room)


def wanted(own_rows: int, share: float) -> int:
    """Count the rows to replay beside so many of the workload's own."""
    return round(own_rows * share / (1 - share))
