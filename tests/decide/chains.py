"""Chains of decisions to test with."""

from datetime import UTC, datetime, timedelta

from components import warehouse
from components.decide import record
from components.decide.chain import Kind
from components.decide.record import Event
from components.warehouse import Connection

NOW = datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=UTC)


def event(
    kind: Kind = "approve",
    approver: str = "ada",
    *,
    evidence: str = "e1",
    run: str = "run-1",
    attempt: int = 1,
    comment: str = "good",
    hours: int = 0,
    reason: str = "",
) -> Event:
    return Event(
        kind,
        "support",
        evidence,
        run,
        NOW + timedelta(hours=hours),
        approver,
        comment,
        attempt,
        reason,
    )


def append(con: Connection, *events: Event) -> None:
    for one in events:
        with warehouse.transaction(con):
            record.append(con, one)
