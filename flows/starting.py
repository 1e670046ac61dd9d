"""Enter a turn into the book of starts when it begins, whoever or whatever started it."""

from datetime import UTC, datetime

from prefect import task
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from components import warehouse
from components.decide import record
from components.gate.evidence import Evidence
from components.trigger import book
from components.trigger.book import Cause, Start
from flows import settings
from flows.workload import Workload


class UnnamedStarterError(ValueError):
    """Whoever starts a turn by hand has to say who it is, and has not."""


@task
def enter(workload: str, start: str | None) -> bool:
    """Take the trigger's entry, or make one; tell whether this turn is the one that may run."""
    run_id = str(flow_run.id)
    with warehouse.connect(settings.load().warehouse) as con:
        if start:
            return book.claim(con, start, run_id)
        cause = _cause()
        reason = "its time had come" if cause == "schedule" else "somebody started it"
        now = datetime.now(UTC)
        book.enter(con, Start(run_id, workload, cause, True, reason, now, run_id))
    return True


def starter(workload: Workload, start: str | None, by: str) -> str:
    """Tell who started this turn by hand; empty where nobody did.

    Raises:
        UnnamedStarterError: Somebody did and did not say who, where that one may not approve.
    """
    if start or _cause() == "schedule":
        return ""
    if not by.strip() and workload.approve.refuse_starter:
        raise UnnamedStarterError(
            f"starting a turn of {workload.workload}: its file has refuse_starter, so say who "
            "starts it: `flywheel turn FILE --as NAME`, or the parameter `by` in Prefect"
        )
    return by.strip()


@task
def note(found: Evidence, starter: str) -> None:
    """Keep who started by hand the turn that an evidence came from."""
    now, run_id = datetime.now(UTC), str(flow_run.id or "")
    with warehouse.connect(settings.load().warehouse) as con:
        record.enter_starter(con, found.digest, run_id, starter, now)


def _cause() -> Cause:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return "schedule" if run and run.auto_scheduled else "person"
