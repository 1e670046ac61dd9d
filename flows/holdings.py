"""Say what a home holds, workload by workload: rows, outputs, versions, approvals that wait."""

from components import warehouse
from components.opening import WarehouseBusyError
from components.register import registry
from components.register.aliases import CHAMPION, PREVIOUS
from components.schema import Json
from flows.settings import Settings

PATIENCE_SECONDS = 10.0
"""So long is waited for whoever holds the warehouse."""


def read(home: Settings, *, servers: bool) -> dict[str, Json]:
    """Count what there is; what can't be asked now is ``null``.

    Args:
        home: Whose.
        servers: Whether Prefect and MLflow are up and can be asked.
    """
    counted = _counted(home)
    if counted is None:
        return {"workloads": None, "approvals_waiting": None}
    workloads: dict[str, Json] = {
        name: {**kinds, "versions": _versions(name) if servers else None}
        for name, kinds in counted.items()
    }
    return {"workloads": workloads, "approvals_waiting": _waiting() if servers else None}


def _counted(home: Settings) -> dict[str, dict[str, Json]] | None:
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


def _versions(workload: str) -> dict[str, Json]:
    found = {alias: registry.aliased(workload, alias) for alias in (CHAMPION, PREVIOUS)}
    return {alias: one.number if one else None for alias, one in found.items()}


def _waiting() -> int:
    from flows import approvals  # noqa: PLC0415 - Prefect is slow to import

    return len(approvals.pending())
