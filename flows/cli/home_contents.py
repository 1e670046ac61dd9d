"""Count what a home holds, by workload, for `flywheel status`."""

from concurrent.futures import ThreadPoolExecutor

from components.register import registry
from components.register.registry import CHAMPION, PREVIOUS, Aliases
from components.schema import Json
from components.store import warehouse
from components.store.lock import WarehouseBusyError
from flows import approvals
from flows.settings import Settings

PATIENCE_SECONDS = 10.0  # how long to wait for another process that holds the warehouse


def read_contents(home: Settings, *, servers: bool) -> dict[str, Json]:
    """Count what there is; what can't be counted now is ``null``.

    Args:
        home: The home.
        servers: Whether Prefect and MLflow are up.
    """
    with ThreadPoolExecutor() as threads:
        aliases = threads.submit(registry.read_all) if servers else None
        waiting = threads.submit(approvals.pending_approvals) if servers else None
        counts = _count_rows(home)
    if counts is None:
        return {"workloads": None, "approvals_waiting": None}
    workloads: dict[str, Json] = {
        name: {
            **kinds,
            "versions": _version_numbers(aliases.result().get(name, Aliases()))
            if aliases
            else None,
        }
        for name, kinds in counts.items()
    }
    approvals_waiting = len(waiting.result()) if waiting else None
    return {"workloads": workloads, "approvals_waiting": approvals_waiting}


def _count_rows(home: Settings) -> dict[str, dict[str, Json]] | None:
    if not home.warehouse.exists():
        return {}
    try:
        with warehouse.connect(home.warehouse, PATIENCE_SECONDS) as con:
            rows = warehouse.select(con, "marts/holdings")
    except WarehouseBusyError:
        return None
    counts: dict[str, dict[str, Json]] = {}
    for row in rows:
        kinds = counts.setdefault(str(row["workload_id"]), {})
        kinds[str(row["kind"])] = int(str(row["things"]))
    return counts


def _version_numbers(aliases: Aliases) -> dict[str, Json]:
    return {alias: getattr(aliases, alias) for alias in (CHAMPION, PREVIOUS)}
