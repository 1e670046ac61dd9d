"""The audit of held-out references: random ones, which a person says are right or wrong."""

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from components.store import warehouse
from components.store.warehouse import Connection

SAMPLE = 50
"""References of a batch: of 50 right ones the exact test shows that at most 7.2 % are wrong."""

AuditVerdict: TypeAlias = Literal["right", "wrong"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One drawn reference; ``verdict`` and ``auditor`` are ``None`` until somebody answered."""

    example_id: str
    interaction_id: str
    batch: int
    verdict: AuditVerdict | None
    auditor: str | None


def drawn(con: Connection, workload_id: str) -> list[Drawn]:
    """Return all references that were drawn for a workload, in the order of their draw."""
    rows = warehouse.rows(
        con,
        "select example_id, interaction_id, batch, verdict, auditor from raw.audits"
        " where workload_id = $workload_id order by batch, place",
        workload_id=workload_id,
    )
    return [Drawn(**row) for row in rows]  # pyright: ignore[reportArgumentType]


def choose(holdout_version: str, examples: Iterable[str], count: int) -> list[str]:
    """Return ``count`` of the examples at random, by a hash keyed with the holdout's version.

    The version has the digest of all held-out requests and references: whoever logs some of them
    can't know which will be drawn, and the same holdout always has the same draw.
    """

    def place(example_id: str) -> str:
        return hashlib.sha256(f"{holdout_version} {example_id}".encode()).hexdigest()

    return sorted(examples, key=place)[:count]


def draw(
    con: Connection,
    workload_id: str,
    holdout_version: str,
    candidates: Sequence[tuple[str, str]],
    count: int,
    *,
    askable: Set[str],
    now: datetime,
) -> list[Drawn]:
    """Return the unanswered references, after drawing a batch of ``count`` if there are none.

    One that left the holdout, or was corrected, before it was answered stays unanswered: else its
    answer would not be about what was drawn, and whoever knows the draw could repair just that.

    Args:
        con: The warehouse, in a transaction.
        workload_id: The workload.
        holdout_version: That of the holdout which the candidates are of.
        candidates: The example and the interaction of each reference that only production vouches
            for. One that was drawn before is not drawn again.
        count: The size of a new batch.
        askable: The examples that are held out as they were logged.
        now: When it is drawn.
    """
    before = drawn(con, workload_id)
    if waiting := [row for row in before if row.verdict is None and row.example_id in askable]:
        return waiting
    known = {row.example_id for row in before}
    fresh = {example: name for example, name in candidates if example not in known}
    batch = 1 + max((row.batch for row in before), default=0)
    for place, example in enumerate(choose(holdout_version, fresh, count), 1):
        con.execute(
            "insert into raw.audits values ($workload, $example, $interaction, $batch, $place,"
            " $version, $now, null, null, null)",
            {
                "workload": workload_id,
                "example": example,
                "interaction": fresh[example],
                "batch": batch,
                "place": place,
                "version": holdout_version,
                "now": now,
            },
        )
    return [row for row in drawn(con, workload_id) if row.batch == batch]


def answer(
    con: Connection,
    workload_id: str,
    interaction_id: str,
    verdict: AuditVerdict,
    *,
    auditor: str,
    now: datetime,
) -> None:
    """Record what a person says of a drawn reference; the first answer stays, others do nothing."""
    con.execute(
        "update raw.audits set verdict = $verdict, auditor = $auditor, answered_at = $now"
        " where workload_id = $workload and interaction_id = $interaction and verdict is null",
        {
            "verdict": verdict,
            "auditor": auditor,
            "now": now,
            "workload": workload_id,
            "interaction": interaction_id,
        },
    )
