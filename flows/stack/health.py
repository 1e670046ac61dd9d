"""Requests to the stack's servers: health, workers' heartbeats, and flow runs without a process."""

import base64
import time
from collections.abc import Generator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import psutil

from components.schema import Json
from flows import access
from flows.access import Login
from flows.settings import Settings
from flows.stack.processes import started_with

LONGEST_SECONDS = 5.0  # the timeout of a request

EVERY = 15.0  # seconds between two looks
PATIENCE = 60.0  # seconds: a run taken by a worker has no process for a few of them

FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # Prefect starts each flow run's process with it

# The states that need a process; PAUSED (suspended too) and SCHEDULED runs don't.
UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]

ENDED = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]  # the final states


class PrefectAuth(httpx.Auth):
    """Logs each request in, and repeats a change with a CSRF token when Prefect requires one."""

    requires_response_body = True

    def __init__(self, login: Login, api: str) -> None:
        self._login = "Basic " + base64.b64encode(login.pair.encode()).decode()
        self._tokens = f"{api}/csrf-token"
        self._csrf = {"Prefect-Csrf-Client": str(uuid4())}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Send the request, and again where the token was missing or too old."""
        request.headers["Authorization"] = self._login
        if request.method == "GET":
            yield request
            return
        request.headers.update(self._csrf)
        response = yield request
        if response.status_code != 403:
            return
        client, login = self._csrf["Prefect-Csrf-Client"], {"Authorization": self._login}
        answer = yield httpx.Request("GET", self._tokens, params={"client": client}, headers=login)
        if answer.is_success:
            self._csrf["Prefect-Csrf-Token"] = answer.json()["token"]
            request.headers.update(self._csrf)
            yield request


def http_client(*, trust_env: bool = False) -> httpx.Client:
    """Open a client of the stack's own servers, which are on the loopback.

    Args:
        trust_env: Use the environment's proxies and certificates, for servers elsewhere.
    """
    # On the loopback there is no TLS, and certificates take 40 ms to load.
    return httpx.Client(trust_env=trust_env, verify=trust_env, timeout=LONGEST_SECONDS)


def prefect_client(settings: Settings) -> httpx.Client:
    """Open a client of the home's own Prefect, logged in."""
    logins = access.read_logins(settings)
    http = http_client()
    if logins is not None:
        http.auth = PrefectAuth(logins.prefect, settings.prefect_api_url)
    return http


def mlflow_answers(settings: Settings) -> bool:
    """Return whether MLflow works."""
    with http_client(trust_env=settings.elsewhere is not None) as http:
        return is_answering(http, f"{settings.mlflow_url}/health")


def prefect_answers(settings: Settings) -> bool:
    """Return whether Prefect works."""
    with http_client(trust_env=settings.elsewhere is not None) as http:
        return is_answering(http, f"{settings.prefect_api_url}/health")


def is_answering(http: httpx.Client, url: str, seconds: float = LONGEST_SECONDS) -> bool:
    """Return whether ``url`` answers 200 within ``seconds``."""
    try:
        return http.get(url, timeout=seconds).status_code == 200
    except httpx.TransportError:
        return False


def wait_until_answering(url: str) -> None:
    """Return once ``url`` answers 200; the parent process sets the limit."""
    with http_client(trust_env=True) as http:
        while not is_answering(http, url):
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A flow run that claims to have a process; only a subflow has no pool but a parent task."""

    id: str
    pool: str | None
    parent_task: str | None


class LostRuns:
    """Finds and crashes the runs without a process."""

    def __init__(self, http: httpx.Client, api: str) -> None:
        self._http = http
        self._api = api
        self._missing_since: dict[str, float] = {}
        self._next_look = 0.0

    def crash(self, reason: str, pool: str | None = None) -> None:
        """Crash each unfinished run, which the caller knows to have no process.

        Args:
            reason: The message of its state.
            pool: Only runs of the pool whose worker died and whose orphans were ended.
        """
        while lost := self._unfinished(pool):
            self._crash(lost, reason)
        self._crash_abandoned()

    def look_round(self, now: float) -> None:
        """Crash the workers' runs that have had no process for a while; ``now`` is monotonic."""
        # A run's last report is lost when it ends while the Prefect server is away.
        if now < self._next_look:
            return
        self._next_look = now + EVERY
        claiming = [run for run in self._unfinished() if run.pool is not None]
        alive = _running_ids()
        self._missing_since = {
            run.id: self._missing_since.get(run.id, now) for run in claiming if run.id not in alive
        }
        lost = [run for run in claiming if now - self._missing_since.get(run.id, now) > PATIENCE]
        self._crash(lost, "No process runs it")
        self._crash_abandoned()

    def _crash_abandoned(self) -> None:
        # Subflows that claim to run inside the process of a run that has ended.
        subflows: dict[str, Json] = {
            "deployment_id": {"is_null_": True},  # others have a process of their own
            "parent_task_run_id": {"is_null_": False},
            "state": {"type": {"any_": [*UNFINISHED]}},
        }
        while lost := [run for run in self._find(flow_runs=subflows) if self._parent_ended(run)]:
            self._crash(lost, "The run that it was part of has ended")

    def _unfinished(self, pool: str | None = None) -> list[ClaimedRun]:
        filters: dict[str, Json] = {"flow_runs": {"state": {"type": {"any_": [*UNFINISHED]}}}}
        if pool is not None:
            filters["work_pools"] = {"name": {"any_": [pool]}}
        return self._find(**filters)

    def _parent_ended(self, run: ClaimedRun) -> bool:
        return bool(
            self._find(
                flow_runs={"state": {"type": {"any_": [*ENDED]}}},
                task_runs={"id": {"any_": [run.parent_task]}},
            )
        )

    def _find(self, **filters: Json) -> list[ClaimedRun]:
        reply = self._http.post(f"{self._api}/flow_runs/filter", json=filters).raise_for_status()
        return [
            ClaimedRun(run["id"], run["work_pool_name"], run["parent_task_run_id"])
            for run in reply.json()
        ]

    def _crash(self, runs: list[ClaimedRun], reason: str) -> None:
        for run in runs:
            state = {"type": "CRASHED", "name": "Crashed", "message": reason}
            url = f"{self._api}/flow_runs/{run.id}/set_state"
            reply = self._http.post(url, json={"state": state}).raise_for_status()
            if reply.json()["status"] != "ACCEPT":
                forced = {"state": state, "force": True}
                self._http.post(url, json=forced).raise_for_status()


def last_heartbeat(http: httpx.Client, api: str, pool: str) -> str | None:
    """Return when the stack's worker of ``pool`` last reported; ``None`` if it never has.

    Compare it with an earlier value, not with a clock, which may have been set since.
    """
    reply = http.post(f"{api}/work_pools/{pool}/workers/filter", json={}).raise_for_status()
    times = {worker["name"]: worker["last_heartbeat_time"] for worker in reply.json()}
    return times.get(pool)


def _running_ids() -> set[str]:
    descendants = psutil.Process().children(recursive=True)
    ids = (started_with(process, FLOW_RUN) for process in descendants)
    return {run_id for run_id in ids if run_id is not None}
