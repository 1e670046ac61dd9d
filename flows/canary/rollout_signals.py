"""Start the settling of a canary as soon as the gateway says that it is decided.

The gateway never talks to Prefect: it writes files, or objects if gateways share a store, and the
supervisor reads them. What is missed here, ``flows.maintenance`` settles within a quarter of an
hour.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NoReturn

import httpx

from components.extensions.canary import shared_rollouts
from components.extensions.machines import object_store
from components.extensions.machines.object_store import ObjectStore
from components.schema import Json
from flows.canary import rollout_reports
from flows.canary.rollout_reports import DECIDING
from flows.settings import Settings

EVERY = 2.0  # seconds between two looks
SHARED_EVERY = 10.0  # seconds between two looks into the store, in a thread of their own

DEPLOYMENT = "settle_rollouts/settle_rollouts"


class RolloutSignals:
    """Starts one flow run for each state of a canary after which something has to be done."""

    def __init__(self, http: httpx.Client, settings: Settings) -> None:
        self._http = http
        self._api = settings.prefect_api_url
        self._folder = rollout_reports.rollout_file(settings, "any").parent
        self._seen: dict[Path, int] = {}
        self._next_look = 0.0
        self._shared: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._unstarted: dict[str, str] = {}  # workloads by what settles their canary
        if settings.store is not None:
            watch = partial(watch_store, settings.store, self._shared.put)
            Thread(target=watch, daemon=True).start()

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
        while not self._shared.empty():
            workload, key = self._shared.get()
            self._unstarted[key] = workload
        for key, workload in [*self._unstarted.items()]:
            self._start(workload, key)
            del self._unstarted[key]

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


def watch_store(store: ObjectStore, signal: Callable[[tuple[str, str]], None]) -> NoReturn:
    """Signal each state of a canary in a store after which something has to be done, for ever."""
    known: dict[str, str] = {}
    while True:
        with suppress(*object_store.network_errors()):
            for found in decided(store, known):
                signal(found)
        time.sleep(SHARED_EVERY)


def decided(store: ObjectStore, known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield workload and key of each canary in a store whose state is new and wants something done.

    ``known`` has the states of before, by canary; one that has ended is not read again.
    """
    for rollout in store.names(shared_rollouts.PLACE):
        if known.get(rollout) in DECIDING - {"undecided"}:
            continue
        match _read_standing(store, rollout):
            case {"id": str(name), "workload": str(workload), "state": str(state)}:
                if name == rollout and state in DECIDING and known.get(rollout) != state:
                    known[rollout] = state
                    yield workload, f"{rollout[:64]} {state}"
            case _:
                continue


def _read_standing(store: ObjectStore, rollout: str) -> Json:
    try:
        text = shared_rollouts.read_standing(store, rollout)
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read(path: Path) -> Json:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
