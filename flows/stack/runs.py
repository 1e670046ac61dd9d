"""What the supervisor asks of and tells Prefect: which workers report, which flow runs died.

Prefect notices when a flow run's process dies under a living worker; when the worker or the machine
dies, its runs would stay RUNNING for ever, and whoever waits for them too.
"""

from dataclasses import dataclass

import httpx

from components.schema import Json

UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]
"""The states that need a process; PAUSED (suspended too) and SCHEDULED runs need none."""

ENDED = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
"""The states that nothing follows."""


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run that claims to have a process."""

    id: str
    pool: str | None
    """The work pool whose worker runs it; a subflow has none."""
    parent_task: str | None
    """The task that stands for this run inside its parent."""


def last_heartbeat(http: httpx.Client, api: str, pool: str) -> str | None:
    """Return when the stack's worker of ``pool`` last reported; ``None`` if it never has.

    This is for comparing with an earlier answer, not with a clock, which may have been set since.
    """
    reply = http.post(f"{api}/work_pools/{pool}/workers/filter", json={}).raise_for_status()
    return next(
        (each["last_heartbeat_time"] for each in reply.json() if each["name"] == pool), None
    )


def unfinished(http: httpx.Client, api: str, pool: str | None = None) -> list[Run]:
    """List the runs that claim to have a process, of one pool or of all."""
    wanted: dict[str, Json] = {"flow_runs": {"state": {"type": {"any_": [*UNFINISHED]}}}}
    if pool is not None:
        wanted["work_pools"] = {"name": {"any_": [pool]}}
    return _find(http, api, wanted)


def abandoned(http: httpx.Client, api: str) -> list[Run]:
    """List the subflows that claim to run inside the process of a run that has ended."""
    subflows: dict[str, Json] = {
        "deployment_id": {"is_null_": True},  # or it has a process, perhaps alive, of its own
        "parent_task_run_id": {"is_null_": False},
        "state": {"type": {"any_": [*UNFINISHED]}},
    }
    found = _find(http, api, {"flow_runs": subflows})
    return [run for run in found if _parent_has_ended(http, api, run)]


def crash(http: httpx.Client, api: str, runs: list[Run], reason: str) -> None:
    """Set ``runs`` to CRASHED."""
    for run in runs:
        state = {"type": "CRASHED", "name": "Crashed", "message": reason}
        url = f"{api}/flow_runs/{run.id}/set_state"
        reply = http.post(url, json={"state": state}).raise_for_status()
        if reply.json()["status"] != "ACCEPT":
            http.post(url, json={"state": state, "force": True}).raise_for_status()


def _parent_has_ended(http: httpx.Client, api: str, run: Run) -> bool:
    wanted: dict[str, Json] = {
        "flow_runs": {"state": {"type": {"any_": [*ENDED]}}},
        "task_runs": {"id": {"any_": [run.parent_task]}},
    }
    return bool(_find(http, api, wanted))


def _find(http: httpx.Client, api: str, wanted: dict[str, Json]) -> list[Run]:
    reply = http.post(f"{api}/flow_runs/filter", json=wanted).raise_for_status()
    return [
        Run(id=run["id"], pool=run["work_pool_name"], parent_task=run["parent_task_run_id"])
        for run in reply.json()
    ]
