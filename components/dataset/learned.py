"""Say in a few figures what a snapshot gives to learn from; no word of any row is among them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from components import manifest
from components.schema import Answer, Json

RECORD = "learned"
"""Under this key an adapter's manifest says how many rows were learned, and how many were not."""


def figures(snapshot: Path) -> dict[str, Json]:
    """Give the snapshot's key, its rows by side, and what kinds of answers are trained on.

    Raises:
        FileNotFoundError: The snapshot is unfinished.
    """
    body = manifest.read(snapshot)
    answers = pq.read_table(snapshot / "train.parquet", columns=["answer"])["answer"].to_pylist()
    kinds = Counter(kind(Answer.from_json(str(one))) for one in answers)
    return {
        "snapshot": body["key"],
        "holdout_version": body["holdout_version"],
        "rows": body["rows"],
        "tokens": body.get("tokens"),
        "answers": {name: kinds[name] for name in sorted(kinds)},
    }


def said(adapter: Mapping[str, Json]) -> list[str]:
    """Return in sentences what became of the rows, as an adapter's manifest has it.

    Older ones don't have it.
    """
    record = adapter.get(RECORD)
    sentences = record.get("said") if isinstance(record, dict) else None
    return [str(one) for one in sentences] if isinstance(sentences, list) else []


def kind(answer: Answer) -> str:
    """Name the kind of an answer."""
    if not answer.calls:
        return "text"
    called = "one call" if len(answer.calls) == 1 else "several calls"
    return f"{called} with text" if answer.text.strip() else called
