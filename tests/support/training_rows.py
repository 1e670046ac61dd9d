"""Write a snapshot's rows: requests with tools, and their answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.chat import prompt
from components.schema import Answer, Json
from components.train.training_examples import Tokens, TrainingExample


def snapshot(folder: Path, pairs: list[tuple[str, str]], weight: float = 1.0) -> Path:
    """Write a snapshot of plain questions and answers."""
    return write(folder, [(asked, (), Answer(answer)) for asked, answer in pairs], weight)


def write(
    folder: Path,
    rows: Sequence[tuple[str, Sequence[str], Answer]],
    weight: float = 1.0,
    side: str = "train",
) -> Path:
    """Write a side of a frozen snapshot, with the columns that training reads.

    Each row is what is asked, the names of the tools offered, and the answer.
    """
    requests = [
        ([{"role": "user", "content": asked}], [tool(name) for name in tools], answer)
        for asked, tools, answer in rows
    ]
    return write_requests(folder, requests, weight, side)


def write_requests(
    folder: Path,
    requests: Sequence[tuple[Sequence[Mapping[str, Json]], Sequence[Mapping[str, Json]], Answer]],
    weight: float = 1.0,
    side: str = "train",
) -> Path:
    """Write a side of messages, tools and answers."""
    table = [
        {
            "example_id": f"{side} {number}",
            "messages": json.dumps(messages),
            "tools": json.dumps(tools),
            "answer": answer.to_json(),
            "completion": [{"role": "assistant", "content": prompt.render_answer(answer)}],
            "weight": weight,
        }
        for number, (messages, tools, answer) in enumerate(requests)
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / f"{side}.parquet")
    return folder


def taught(*tokens: Tokens, row_id: str = "a", is_good: bool = True) -> dict[str, Any]:
    """Return an example of these rows as a batch's dictionary."""
    return asdict(TrainingExample([*tokens], row_id, is_good))


def tool(name: str) -> dict[str, Json]:
    """Return a tool without arguments."""
    return {"type": "function", "function": {"name": name, "description": f"Do {name}."}}
