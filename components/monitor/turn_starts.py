"""Decide whether a turn starts now, and log every start and non-start with its reason."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from components.monitor.settings import Trigger
from components.monitor.signs import Sign
from components.store import warehouse
from components.store.warehouse import Connection

MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class StartDecision:
    """Whether a turn starts, and the reason in words."""

    starts: bool
    reason: str


def decide_start(
    signs: Sequence[Sign],
    earlier: Sequence[datetime],
    settings: Trigger,
    *,
    under_way: bool,
    now: datetime,
) -> StartDecision:
    """Start a turn if any sign asks for one and nothing holds it back.

    Args:
        signs: What the looks found.
        earlier: When turns of the workload started, however they were.
        settings: Cool-down and budget.
        under_way: Whether a turn of the workload runs.
        now: The time of this look.
    """
    given = [sign for sign in signs if sign.is_given]
    if not given:
        return StartDecision(
            False, "; ".join(sign.told for sign in signs) or "nothing to go by yet"
        )
    told = "; ".join(sign.told for sign in given)
    held = _held_back(earlier, settings, under_way=under_way, now=now)
    return StartDecision(False, f"{held}; else: {told}") if held else StartDecision(True, told)


def _held_back(
    earlier: Sequence[datetime], settings: Trigger, *, under_way: bool, now: datetime
) -> str | None:
    if under_way:
        return "a turn is under way"
    earlier = [one for one in earlier if one <= now]  # else the clock was set back since
    rested = timedelta(hours=settings.cooldown_hours)
    if earlier and now - max(earlier) < rested:
        return f"the last turn started {max(earlier):%Y-%m-%d %H:%M}, cooldown_hours is not over"
    spent = sum(now - one < MONTH for one in earlier)
    if spent >= settings.turns_a_month:
        return f"{spent} turns in 30 days, turns_a_month is {settings.turns_a_month}"
    return None


Cause: TypeAlias = Literal["trigger", "schedule", "stale", "person"]
"""Who or what started a turn; ``stale``: an approval whose evidence was no longer so."""


@dataclass(frozen=True, slots=True)
class TurnStart:
    """One entry. ``flow_run_id`` is the turn's; a turn that was asked for and has none waits."""

    start_id: str
    workload_id: str
    cause: Cause
    started: bool
    reason: str
    looked_at: datetime
    flow_run_id: str | None = None


def record_start(con: Connection, entry: TurnStart, signs: Sequence[Sign] = ()) -> None:
    """Write an entry down; the same ``start_id`` again changes nothing."""
    said = json.dumps([asdict(sign) for sign in signs])
    warehouse.insert(con, "raw.starts", [{**asdict(entry), "signs": said}])


def claim_start(con: Connection, start_id: str, flow_run_id: str) -> bool:
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


def unclaimed_starts(con: Connection, workload_id: str, before: datetime) -> list[TurnStart]:
    """List the starts that the trigger asked for before a time and that no turn has taken."""
    return [
        one
        for one in read_starts(con, workload_id, None)
        if one.started and one.flow_run_id is None and one.looked_at < before
    ]


def read_starts(con: Connection, workload_id: str | None, most: int | None) -> list[TurnStart]:
    """List the entries of a workload, or (``None``) of all, the newest first; at most so many."""
    return [*warehouse.read(con, "marts/starts", TurnStart, workload_id=workload_id, most=most)]


def learned_until(con: Connection, workload_id: str, now: datetime) -> datetime | None:
    """Give the time since when traffic is new: when the last turn began that came to its end.

    A turn that began after ``now``, before the clock was set back, is left out: by it nothing would
    be new until then.
    """
    (found,) = warehouse.select(con, "marts/learned_until", workload_id=workload_id, now=now)
    time = found["learned_until"]
    assert time is None or isinstance(time, datetime)
    return time
