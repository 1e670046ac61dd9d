"""Count what a home holds, by workload, for `flywheel status`."""

from concurrent.futures import ThreadPoolExecutor

from components.register import registry
from components.register.registry import CHAMPION, PREVIOUS, Aliases
from components.schema import Json
from components.store import warehouse
from components.store.lock import WarehouseBusyError
from flows import approvals
from flows.settings import Settings

PATIENCE_SECONDS = 10.0  # so long is waited for whoever holds the warehouse


def read_contents(home: Settings, *, servers: bool) -> dict[str, Json]:
    """Count what there is; what can't be asked now is ``null``.

    Args:
        home: Whose.
        servers: Whether Prefect and MLflow are up and can be asked.
    """
    with ThreadPoolExecutor() as threads:
        standing = threads.submit(registry.read_all) if servers else None
        waiting = threads.submit(approvals.pending_approvals) if servers else None
        counted = _count_rows(home)
    if counted is None:
        return {"workloads": None, "approvals_waiting": None}
    now = standing.result() if standing else None
    workloads: dict[str, Json] = {
        name: {
            **kinds,
            "versions": _version_numbers(now.get(name, Aliases())) if now is not None else None,
        }
        for name, kinds in counted.items()
    }
    waits = len(waiting.result()) if waiting else None
    return {"workloads": workloads, "approvals_waiting": waits}


def _count_rows(home: Settings) -> dict[str, dict[str, Json]] | None:
    if not home.warehouse.exists():
        return {}
    try:
        with warehouse.connect(home.warehouse, PATIENCE_SECONDS) as con:
            rows = warehouse.select(con, "marts/holdings")
    except WarehouseBusyError:
        return None
    found: dict[str, dict[str, Json]] = {}
    for row in rows:
        kinds = found.setdefault(str(row["workload_id"]), {})
        kinds[str(row["kind"])] = int(str(row["things"]))
    return found


def _version_numbers(now: Aliases) -> dict[str, Json]:
    return {alias: getattr(now, alias) for alias in (CHAMPION, PREVIOUS)}
