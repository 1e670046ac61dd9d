"""Chains of decisions to test with."""

from datetime import UTC, datetime, timedelta

from components.decide import decision_log
from components.decide.chain import Kind
from components.decide.decision_log import LogEvent
from components.store import warehouse
from components.store.warehouse import Connection

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
) -> LogEvent:
    return LogEvent(
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


def append(con: Connection, *events: LogEvent) -> None:
    for one in events:
        with warehouse.transaction(con):
            decision_log.append_event(con, one)
