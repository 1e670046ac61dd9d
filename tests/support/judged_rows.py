"""A snapshot of what people preferred: pairs of answers, and answers with a label."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.schema import Message


def pairs(folder: Path, judged: Sequence[tuple[str, str, str]], weight: float = 1.0) -> Path:
    """Write pairs of a chosen and a rejected answer to a question."""
    rows = [
        {
            "preference_id": f"pair {number}",
            "request": _request(asked),
            "chosen": completion(chosen),
            "rejected": completion(rejected),
            "weight": weight,
        }
        for number, (asked, chosen, rejected) in enumerate(judged)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "preferences.parquet")
    return folder


def labels(folder: Path, judged: Sequence[tuple[str, str, bool]], weight: float = 1.0) -> Path:
    """Write answers to questions, labelled good or bad."""
    rows = [
        {
            "label_id": f"label {number}",
            "request": _request(asked),
            "completion": completion(answer),
            "label": is_good,
            "weight": weight,
        }
        for number, (asked, answer, is_good) in enumerate(judged)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")
    return folder


def completion(answer: str) -> list[Message]:
    """Return an answer as a message."""
    return [{"role": "assistant", "content": answer}]


def _request(asked: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": asked}], "tools": []})
