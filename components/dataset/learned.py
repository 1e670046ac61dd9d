"""Say in a few figures what a snapshot gives to learn from; no word of any row is among them."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from components import manifest
from components.schema import Answer, Json


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


def kind(answer: Answer) -> str:
    """Name the kind of an answer."""
    if not answer.calls:
        return "text"
    called = "one call" if len(answer.calls) == 1 else "several calls"
    return f"{called} with text" if answer.text.strip() else called
