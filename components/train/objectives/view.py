"""Which file of a snapshot an objective reads, and what is wrong if that one is empty."""

from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow.parquet as pq

from components.train.objectives.settings import Objective

View: TypeAlias = Literal["train", "preferences", "labels"]

HOLDS: dict[View, str] = {
    "train": "examples to answer",
    "preferences": "pairs of a chosen and a rejected answer",
    "labels": "answers labelled good or bad",
}

LEARNED_BY: dict[View, str] = {"train": "sft", "preferences": "dpo or orpo", "labels": "kto"}


def of(objective: Objective) -> View:
    """Name the view that an objective learns from."""
    if objective.kind in ("dpo", "orpo"):
        return "preferences"
    return "labels" if objective.kind == "kto" else "train"


def require_rows(snapshot: Path, objective: Objective) -> Path:
    """Give the view's file.

    Raises:
        ValueError: It has no rows; the message says which views have some, and who learns them.
    """
    wanted = of(objective)
    path = _path(snapshot, wanted)
    if _rows(path):
        return path
    others = ", ".join(
        f"{_rows(_path(snapshot, view))} {HOLDS[view]} ({LEARNED_BY[view]})"
        for view in HOLDS
        if view != wanted
    )
    raise ValueError(
        f"reading {snapshot}: objective {objective.kind} learns from {HOLDS[wanted]}, and there "
        f"are none in {path.name}; there are {others}"
    )


def _path(snapshot: Path, view: View) -> Path:
    return snapshot / f"{view}.parquet"


def _rows(path: Path) -> int:
    return pq.read_metadata(path).num_rows if path.exists() else 0
