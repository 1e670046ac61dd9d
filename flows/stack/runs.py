"""What the supervisor asks of and tells Prefect: which workers report, which flow runs died.

Prefect notices when a flow run's process dies under a living worker; when the worker or the machine
dies, its runs would stay RUNNING for ever, and whoever waits for them too.
"""

from dataclasses import dataclass
from datetime import datetime

import httpx

from components.schema import Json

UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]
"""The states that need a process; PAUSED (suspended too) and SCHEDULED runs need none."""


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run that claims to have a process."""

    id: str
    name: str
    pool: str | None
    since: datetime


def serves(http: httpx.Client, api: str, pool: str, since: datetime) -> bool:
    """Tell whether a worker of ``pool`` has reported after ``since``."""
    reply = http.post(f"{api}/work_pools/{pool}/workers/filter", json={}).raise_for_status()
    beats = (datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in reply.json())
    return any(beat > since for beat in beats)


def unfinished(http: httpx.Client, api: str, pool: str | None = None) -> list[Run]:
    """List the runs that claim to have a process, of one pool or of all."""
    wanted: dict[str, Json] = {"flow_runs": {"state": {"type": {"any_": [*UNFINISHED]}}}}
    if pool is not None:
        wanted["work_pools"] = {"name": {"any_": [pool]}}
    return _find(http, api, wanted)


def crash(http: httpx.Client, api: str, runs: list[Run], reason: str) -> None:
    """Set ``runs`` and the subflows inside their processes to CRASHED."""
    for run in runs:
        state = {"type": "CRASHED", "name": "Crashed", "message": reason}
        url = f"{api}/flow_runs/{run.id}/set_state"
        reply = http.post(url, json={"state": state}).raise_for_status()
        if reply.json()["status"] != "ACCEPT":
            http.post(url, json={"state": state, "force": True}).raise_for_status()
    if runs:
        crash(http, api, _subflows(http, api, runs), reason)


def _subflows(http: httpx.Client, api: str, parents: list[Run]) -> list[Run]:
    # A run with a deployment has a process, and perhaps a living worker, of its own.
    inside: dict[str, Json] = {
        "parent_flow_run_id": {"any_": [run.id for run in parents]},
        "deployment_id": {"is_null_": True},
        "state": {"type": {"any_": [*UNFINISHED]}},
    }
    return _find(http, api, {"flow_runs": inside})


def _find(http: httpx.Client, api: str, wanted: dict[str, Json]) -> list[Run]:
    reply = http.post(f"{api}/flow_runs/filter", json=wanted).raise_for_status()
    return [
        Run(
            id=run["id"],
            name=run["name"],
            pool=run["work_pool_name"],
            since=datetime.fromisoformat(run["state"]["timestamp"]),
        )
        for run in reply.json()
    ]
