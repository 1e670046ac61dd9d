"""The part of Prefect's REST API that commands and flows use, without Prefect's own client.

The client takes two seconds to import, and a person who types ``flywheel pending`` waits for it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import AfterValidator, AliasPath, Field, TypeAdapter

from components.json_http import Answer, Rest
from components.schema import Json
from flows import access, settings
from flows.access import Login
from flows.stack.health import PrefectAuth

SOON = timedelta(minutes=1)  # so long before its time a scheduled turn is one under way

PAGE = 200  # Prefect's largest page of runs

FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

PAUSE_KEY = Field(validation_alias=AliasPath("state_details", "pause_key"))


@dataclass(frozen=True, slots=True)
class State:
    """The state of a flow run; ``pause_key`` names what a suspended one waits for."""

    type: str
    name: str
    message: str | None
    timestamp: datetime
    pause_key: Annotated[str | None, PAUSE_KEY] = None

    def is_final(self) -> bool:
        """Return whether nothing follows it."""
        return self.type in FINAL

    def is_completed(self) -> bool:
        """Return whether the run came to its end without an error."""
        return self.type == "COMPLETED"

    def is_paused(self) -> bool:
        """Return whether the run waits for an answer."""
        return self.type == "PAUSED"


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run; it has no state for a moment after it was made."""

    id: UUID
    name: str
    tags: Sequence[str]
    parameters: Mapping[str, Any]
    created: Annotated[datetime, AfterValidator(lambda at: at.astimezone(UTC))]
    state: State | None

    @property
    def state_type(self) -> str | None:
        """The type of its state, such as ``RUNNING``."""
        return self.state.type if self.state else None


RUN = TypeAdapter(Run)


def find(
    flow: str | None,
    *tags: str,
    states: Sequence[str],
    due: datetime | None = None,
    pools: Sequence[str] = (),
) -> list[Run]:
    """Find all runs of a flow, or of any, with all ``tags`` and one of ``states``, newest first.

    ``due``: only those that are expected to start before then. ``pools``: only those of work
    pools of such names, as others may have flows of the same name in one server.
    """
    flow_runs: dict[str, Json] = {"state": {"type": {"any_": [*states]}}}
    if due:
        flow_runs["expected_start_time"] = {"before_": due.isoformat()}
    if tags:
        flow_runs["tags"] = {"all_": [*tags]}
    query: dict[str, Json] = {"flow_runs": flow_runs, "sort": "EXPECTED_START_TIME_DESC"}
    if flow:
        query["flows"] = {"name": {"any_": [flow]}}
    if pools:
        query["work_pools"] = {"name": {"any_": [*pools]}}
    # A run that ends meanwhile moves the pages, so that one may be met twice.
    runs = map(RUN.validate_python, pages("/flow_runs/filter", query))
    return list({run.id: run for run in runs}.values())


def read(run_id: UUID) -> Run:
    """Read a flow run."""
    return RUN.validate_python(server().get(f"/flow_runs/{run_id}"))


def start(
    deployment: str, parameters: Mapping[str, Any], tags: Sequence[str], key: str | None = None
) -> Run:
    """Start a run without a parent; a second start under the same ``key`` returns the first run."""
    target = server().get(f"/deployments/name/{deployment}")
    request = {
        "parameters": dict(parameters),
        "tags": [*tags],
        # A request that is sent again, because its answer was lost, must not start a second run.
        "idempotency_key": key or str(uuid4()),
        "state": {"type": "SCHEDULED", "name": "Scheduled"},
    }
    made = server().post(f"/deployments/{target['id']}/create_flow_run", request)
    return RUN.validate_python(made)


def turns_under_way(config: Path) -> list[Run]:
    """Find the turns of a workload's file that run, or begin within ``SOON``."""
    file = config.resolve()  # scheduled turns have no tag, so they are matched by their file
    due = datetime.now(UTC) + SOON
    return [
        run
        for run in find("turn", states=["SCHEDULED", "PENDING", "RUNNING"], due=due)
        if Path(str(run.parameters.get("config"))).resolve() == file
    ]


def answer_held(run_id: UUID, pause_key: str) -> dict[str, Any] | None:
    """Read Prefect's stored answer to a suspended run, unparsed, or ``None``.

    With Prefect's login one may store inputs whose keys begin with that of the answer, and that are
    older: they would date it.
    """
    key, others = f"suspended-{pause_key}-response", list[str]()
    while True:
        query = {"prefix": key, "limit": PAGE, "exclude_keys": others}
        inputs = server().post(f"/flow_runs/{run_id}/input/filter", query)
        if (held := next((each for each in inputs if each["key"] == key), None)) is not None:
            return held
        if len(inputs) < PAGE:
            return None
        others += [each["key"] for each in inputs]


def online_workers(pool: str) -> list[str]:
    """Return the names of a pool's workers whose heartbeats arrive."""
    workers = pages(f"/work_pools/{pool}/workers/filter", {})
    return [worker["name"] for worker in workers if worker["status"] == "ONLINE"]


def pages(path: str, query: Mapping[str, Json]) -> Iterator[Answer]:
    """Yield all results of a filter."""
    offset = 0
    while True:
        page = server().post(path, {**query, "limit": PAGE, "offset": offset})
        yield from page
        if len(page) < PAGE:
            return
        offset += PAGE


def server() -> Rest:
    """Return the API of the Prefect that the environment names, or of the home's own."""
    home = settings.load()
    kept = access.read_logins(home)
    user, colon, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    login = kept.prefect if kept else Login(user, password) if colon else None
    return _server(home.prefect_api_url, login, trust_env=home.elsewhere is not None)


@cache
def _server(api: str, login: Login | None, *, trust_env: bool) -> Rest:
    return Rest(api, PrefectAuth(login, api) if login else None, trust_env=trust_env)
