"""Count the feedback that no turn has learned from."""

from datetime import datetime

from components import warehouse
from components.trigger.settings import Trigger
from components.trigger.signs import Sign
from components.warehouse import Connection


def look(con: Connection, workload_id: str, since: datetime, settings: Trigger) -> Sign | None:
    """Compare the signals that were loaded after ``since`` with the number that is worth a turn."""
    if settings.min_feedback is None:
        return None
    found = warehouse.select(con, "marts/new_feedback", workload_id=workload_id, since=since)
    count = int(str(found[0]["signals"]))
    told = f"{count} new feedback signals (a turn is worth {settings.min_feedback})"
    return Sign("feedback", count, settings.min_feedback, told)
