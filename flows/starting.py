"""Enter a turn into the book of starts when it begins, whoever or whatever started it."""

from datetime import UTC, datetime

from prefect import task
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from components import warehouse
from components.trigger import book
from components.trigger.book import Cause, Start
from flows import settings


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


def _cause() -> Cause:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return "schedule" if run and run.auto_scheduled else "person"
