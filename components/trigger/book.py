"""The book of starts: every turn that was started, every time that none was, and why."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from components import warehouse
from components.trigger.signs import Sign
from components.warehouse import Connection

Cause: TypeAlias = Literal["trigger", "schedule", "stale", "person"]
"""Who or what started a turn; ``stale``: an approval whose evidence was no longer so."""


@dataclass(frozen=True, slots=True)
class Start:
    """One entry. ``flow_run_id`` is the turn's; a turn that was asked for and has none waits."""

    start_id: str
    workload_id: str
    cause: Cause
    started: bool
    reason: str
    looked_at: datetime
    flow_run_id: str | None = None


def enter(con: Connection, entry: Start, signs: Sequence[Sign] = ()) -> None:
    """Write an entry down; the same ``start_id`` again changes nothing."""
    said = json.dumps([asdict(sign) for sign in signs])
    warehouse.insert(con, "raw.starts", [{**asdict(entry), "signs": said}])


def claim(con: Connection, start_id: str, flow_run_id: str) -> bool:
    """Let a turn take a start that the trigger asked for; tell whether it is the one that may run.

    An event that arrives late and the look that caught up on it ask for the same turn twice.
    """
    with warehouse.transaction(con):
        con.execute(
            """
            update raw.starts
            set flow_run_id = $flow_run_id
            where start_id = $start_id and flow_run_id is null
            """,
            {"start_id": start_id, "flow_run_id": flow_run_id},
        )
    taken = warehouse.rows(
        con, "select flow_run_id from raw.starts where start_id = $start_id", start_id=start_id
    )
    return not taken or taken[0]["flow_run_id"] == flow_run_id


def unclaimed(con: Connection, workload_id: str, before: datetime) -> list[Start]:
    """List the starts that the trigger asked for before a time and that no turn has taken."""
    return [
        one
        for one in entries(con, workload_id, None)
        if one.started and one.flow_run_id is None and one.looked_at < before
    ]


def entries(con: Connection, workload_id: str | None, most: int | None) -> list[Start]:
    """List the entries of a workload, or (``None``) of all, the newest first; at most so many."""
    return [*warehouse.read(con, "marts/starts", Start, workload_id=workload_id, most=most)]


def learned_until(con: Connection, workload_id: str, now: datetime) -> datetime | None:
    """Give the time since when traffic is new: when the last turn began that came to its end.

    A turn that began after ``now``, before the clock was set back, is left out: by it nothing would
    be new until then.
    """
    (found,) = warehouse.select(con, "marts/learned_until", workload_id=workload_id, now=now)
    time = found["learned_until"]
    assert time is None or isinstance(time, datetime)
    return time
