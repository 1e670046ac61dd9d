"""Every request of every task with both models' answers and scores, as one Parquet file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.gate.comparable import Measured
from components.scorecard import Sample

SCORES = pa.map_(pa.string(), pa.float64())

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("example_id", pa.string()),
        ("cluster_id", pa.string()),
        ("doc_hash", pa.string()),
        ("request", pa.string()),
        ("reference", pa.string()),
        ("challenger", pa.string()),
        ("opponent", pa.string()),
        ("challenger_scores", SCORES),
        ("opponent_scores", SCORES),
        ("slices", pa.map_(pa.string(), pa.string())),
    ]
)
"""One row per request of a task; what the opponent was not asked is null."""


def write(path: Path, challenger: Measured, opponent: Measured) -> None:
    """Write the rows, by task and then by the hash of the request."""
    rows: list[dict[str, object]] = []
    for task, card in sorted(challenger.items()):
        theirs = opponent.get(task)
        others = {one.doc_hash: one for one in theirs.samples} if theirs else {}
        ordered = sorted(card.samples, key=lambda one: one.doc_hash)
        rows += [_row(task, one, others.get(one.doc_hash)) for one in ordered]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, compression="zstd")


def _row(task: str, ours: Sample, theirs: Sample | None) -> dict[str, object]:
    return {
        "task": task,
        "example_id": ours.example_id,
        "cluster_id": ours.cluster_id,
        "doc_hash": ours.doc_hash,
        "request": ours.request,
        "reference": ours.reference,
        "challenger": ours.output,
        "opponent": theirs.output if theirs else None,
        "challenger_scores": [*ours.scores.items()],
        "opponent_scores": [*theirs.scores.items()] if theirs else None,
        "slices": [*ours.slices.items()],
    }
