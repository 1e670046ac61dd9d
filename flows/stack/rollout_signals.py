"""Start the settling of a canary as soon as the gateway says that it is decided.

The gateway never talks to Prefect: it writes files, and the supervisor reads them. What is missed
here, ``flows.maintenance`` settles within a quarter of an hour.
"""

import json
from pathlib import Path

import httpx

from components.schema import Json
from flows import gateway_status
from flows.gateway_status import DECIDING
from flows.settings import Settings

EVERY = 2.0  # seconds between two looks

DEPLOYMENT = "settle_rollouts/settle_rollouts"


class RolloutSignals:
    """Starts one flow run for each state of a canary after which something has to be done."""

    def __init__(self, http: httpx.Client, settings: Settings) -> None:
        self._http = http
        self._api = settings.prefect_api_url
        self._folder = gateway_status.rollout_file(settings, "any").parent
        self._seen: dict[Path, int] = {}
        self._next_look = 0.0

    def look_round(self, now: float) -> None:
        """Start what the files that changed ask for; ``now`` is monotonic.

        Raises:
            httpx.HTTPError: Prefect is away; the next look tries again.
        """
        if now < self._next_look:
            return
        self._next_look = now + EVERY
        for path in sorted(self._folder.glob("*.json")):
            try:
                changed = path.stat().st_mtime_ns
            except OSError:
                continue
            if self._seen.get(path) != changed:
                self._answer(path)
                self._seen[path] = changed

    def _answer(self, path: Path) -> None:
        match _read(path):
            case {"id": str(rollout), "workload": str(workload), "state": str(state)}:
                if state in DECIDING and path.stem == workload:
                    self._start(workload, f"{rollout[:64]} {state}")
            case _:
                return

    def _start(self, workload: str, key: str) -> None:
        found = self._http.get(f"{self._api}/deployments/name/{DEPLOYMENT}").raise_for_status()
        request = {
            "parameters": {"workload": workload},
            # The same state of the same canary starts no second run.
            "idempotency_key": f"settle {key}",
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        url = f"{self._api}/deployments/{found.json()['id']}/create_flow_run"
        self._http.post(url, json=request).raise_for_status()


def _read(path: Path) -> Json:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
