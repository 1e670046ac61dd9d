"""A snapshot's held-out references, and which of them only production vouches for."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from components.schema import Answer, Json
from components.store import warehouse
from components.store.warehouse import Connection, Location


@dataclass(frozen=True, slots=True)
class HeldReference:
    """A held-out request and its reference; ``messages``, ``tools`` and ``answer`` are JSON.

    ``is_vouched`` is whether anything but production's answer says that the reference is right: a
    person who confirmed or corrected it, or the log's reference values. ``is_corrected`` is whether
    it is another than production answered.
    """

    example_id: str
    interaction_ids: tuple[str, ...]
    messages: str
    tools: str
    answer: str
    is_vouched: bool
    is_corrected: bool


COLUMNS = (
    "example_id",
    "interaction_ids",
    "feedback_ids",
    "messages",
    "tools",
    "answer",
    "acceptable",
    "logged_answer",
)


def read(path: Location, snapshot: Path) -> list[HeldReference]:
    """Read the held-out references of a finished snapshot; none of an older one without columns.

    ``path`` is the warehouse, which has the feedback that the rows name.
    """
    file = snapshot / "holdout.parquet"
    if not {*COLUMNS} <= {*pq.read_schema(file).names}:
        return []
    rows = pq.read_table(file, columns=[*COLUMNS]).to_pylist()
    named = sorted({name for row in rows for name in row["feedback_ids"]})
    with warehouse.connect(path) as con:
        vouching = _vouching(con, named)
    return [
        HeldReference(
            row["example_id"],
            tuple(row["interaction_ids"]),
            row["messages"],
            row["tools"],
            row["answer"],
            is_vouched=row["acceptable"] is not None
            or _is_corrected(row["answer"], row["logged_answer"])
            or not vouching.isdisjoint(row["feedback_ids"]),
            is_corrected=_is_corrected(row["answer"], row["logged_answer"]),
        )
        for row in rows
    ]


def _is_corrected(answer: str, logged: str | None) -> bool:
    return bool(logged) and Answer.from_json(answer) != Answer.from_json(str(logged))


def _vouching(con: Connection, named: list[str]) -> set[str]:
    rows = warehouse.select(con, "marts/vouching_feedback", feedback_ids=cast("list[Json]", named))
    return {str(row["feedback_id"]) for row in rows}
