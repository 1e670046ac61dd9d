"""Find the flow runs that claim to run while no process of the stack runs them."""

import httpx
import psutil

from flows.stack import runs
from flows.stack.processes import started_with

EVERY = 15.0  # seconds between two looks
PATIENCE = 60.0  # seconds: a run taken by a worker has no process for a few of them

FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Prefect starts each flow run's process with it."""


class Janitor:
    """What the supervisor knows of runs without a process: since when each has had none."""

    def __init__(self, http: httpx.Client, api: str) -> None:
        self._http = http
        self._api = api
        self._missing_since: dict[str, float] = {}
        self._next_look = 0.0

    def crash_all(self, reason: str) -> None:
        """Crash each unfinished run; for the start, when no process can be there."""
        while found := runs.unfinished(self._http, self._api):
            runs.crash(self._http, self._api, found, reason)

    def crash_pool(self, pool: str, reason: str) -> None:
        """Crash each unfinished run of a pool whose worker died, and whose orphans were ended."""
        while found := runs.unfinished(self._http, self._api, pool):
            runs.crash(self._http, self._api, found, reason)
        self._crash_abandoned()

    def look_round(self, now: float) -> None:
        """Crash the workers' runs that have had no process for a while; looks now and then.

        A run's last report is lost when it ends while the Prefect server is away.

        Args:
            now: Seconds on a clock that never goes back.
        """
        if now < self._next_look:
            return
        self._next_look = now + EVERY
        found = [run for run in runs.unfinished(self._http, self._api) if run.pool is not None]
        alive = _running_ids()
        self._missing_since = {
            run.id: self._missing_since.get(run.id, now) for run in found if run.id not in alive
        }
        lost = [run for run in found if now - self._missing_since.get(run.id, now) > PATIENCE]
        runs.crash(self._http, self._api, lost, "No process runs it")
        self._crash_abandoned()

    def _crash_abandoned(self) -> None:
        while found := runs.abandoned(self._http, self._api):
            runs.crash(self._http, self._api, found, "The run that it was part of has ended")


def _running_ids() -> set[str]:
    descendants = psutil.Process().children(recursive=True)
    ids = (started_with(process, FLOW_RUN) for process in descendants)
    return {found for found in ids if found is not None}
