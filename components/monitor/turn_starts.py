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

Cause: TypeAlias = Literal["trigger", "schedule", "stale", "person"]
"""The cause of a start; ``stale``: an approval whose evidence was out of date."""


@dataclass(frozen=True, slots=True)
class StartDecision:
    """Whether a turn starts, and the reason."""

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
    """Start a turn if any sign reached its bound and nothing prevents it.

    ``earlier`` are the start times of the workload's turns, of any cause; ``under_way`` is whether
    one of them is running.
    """
    reached = [sign for sign in signs if sign.is_reached]
    if not reached:
        reason = "; ".join(sign.text for sign in signs)
        return StartDecision(False, reason or "no data to decide on yet")
    reason = "; ".join(sign.text for sign in reached)
    objection = _held_back(earlier, settings, under_way=under_way, now=now)
    if objection:
        return StartDecision(False, f"{objection}; else: {reason}")
    return StartDecision(True, reason)


def _held_back(
    earlier: Sequence[datetime], settings: Trigger, *, under_way: bool, now: datetime
) -> str | None:
    if under_way:
        return "a turn is under way"
    # later ones are from before the clock was set back
    earlier = [started for started in earlier if started <= now]
    if earlier and now - max(earlier) < timedelta(hours=settings.cooldown_hours):
        return f"the last turn started {max(earlier):%Y-%m-%d %H:%M}, cooldown_hours is not over"
    spent = sum(now - started < MONTH for started in earlier)
    if spent >= settings.turns_a_month:
        return f"{spent} turns in 30 days, turns_a_month is {settings.turns_a_month}"
    return None


@dataclass(frozen=True, slots=True)
class TurnStart:
    """One start or non-start. A requested turn without a ``flow_run_id`` has not begun yet."""

    start_id: str
    workload_id: str
    cause: Cause
    started: bool
    reason: str
    looked_at: datetime
    flow_run_id: str | None = None


def record_start(con: Connection, entry: TurnStart, signs: Sequence[Sign] = ()) -> None:
    """Insert an entry; idempotent by ``start_id``."""
    figures = [
        {"kind": sign.kind, "figure": sign.figure, "bound": sign.bound, "told": sign.text}
        for sign in signs
    ]
    warehouse.insert(con, "raw.starts", [{**asdict(entry), "signs": json.dumps(figures)}])


def is_requested(con: Connection, start_id: str, workload_id: str) -> bool:
    """Return whether a trigger, or stale evidence, requested a turn of a workload by this start."""
    return any(
        start.started and start.start_id == start_id
        for start in read_starts(con, workload_id, None)
    )


def claim_start(con: Connection, start_id: str, flow_run_id: str) -> bool:
    """Claim a start that the trigger requested for a flow run; return whether it may run.

    A late event and the trigger's next run can both request the same turn.
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
    return bool(taken) and taken[0]["flow_run_id"] == flow_run_id


def unclaimed_starts(con: Connection, workload_id: str, before: datetime) -> list[TurnStart]:
    """Return the starts requested before a time that no turn has claimed."""
    return [
        start
        for start in read_starts(con, workload_id, None)
        if start.started and start.flow_run_id is None and start.looked_at < before
    ]


def read_starts(con: Connection, workload_id: str | None, most: int | None) -> list[TurnStart]:
    """Return the entries of one workload or of all (``None``), newest first, at most ``most``."""
    return warehouse.records(con, "marts/starts", TurnStart, workload_id=workload_id, most=most)


def learned_until(con: Connection, workload_id: str, now: datetime) -> datetime | None:
    """Return when the last completed turn's curation began; later traffic is new.

    A turn that began after ``now``, before the clock was set back, is ignored: with it nothing
    would be new until then.
    """
    (row,) = warehouse.select(con, "marts/learned_until", workload_id=workload_id, now=now)
    time = row["learned_until"]
    assert time is None or isinstance(time, datetime)
    return time
