"""Give what curation made of a workload's feedback, for a person who wants to see why."""

from dataclasses import dataclass
from datetime import datetime

from components import warehouse
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class FateCount:
    """How many signals have one fate."""

    fate: str
    signals: int


@dataclass(frozen=True, slots=True)
class Found:
    """One burst: who, when, how many against how many expected, and how many are held back."""

    kind: str
    actors: list[str]
    first_at: datetime
    last_at: datetime
    found: int
    expected: float
    chance: float
    aim: str
    held_back: int


@dataclass(frozen=True, slots=True)
class Capped:
    """One actor of whom something is held back; shares are of all signals' weight."""

    client_id: str
    actor_id: str
    signals: int
    kept: int
    share_before: float
    share_after: float
    cap: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How many times people disagreed in one way, and what came of it."""

    kind: str
    method: str
    outcome: str
    found: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All there is to say about a workload's feedback, as of its last curation."""

    fates: list[FateCount]
    bursts: list[Found]
    capped: list[Capped]
    disagreements: list[Disagreement]


def read(con: Connection, workload_id: str) -> Evidence:
    """Read the evidence of a curated workload; empty where nobody said anything."""
    fates = con.execute(
        "select fate, signals from marts.fates where workload_id = $workload_id"
        " order by is_used desc, signals desc, fate asc",
        {"workload_id": workload_id},
    ).fetchall()
    named = {"workload_id": workload_id}
    return Evidence(
        [FateCount(*row) for row in fates],
        list(warehouse.read(con, "marts/bursts", Found, **named)),
        list(warehouse.read(con, "marts/capped_actors", Capped, **named)),
        list(warehouse.read(con, "marts/disagreements", Disagreement, **named)),
    )
