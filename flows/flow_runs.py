"""Start, find and name Prefect flow runs of our deployments."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.runtime import flow_run

from flows import home_workloads

POLL_SECONDS = 1.0


def run_child(
    deployment: str, parameters: Mapping[str, str], *, timeout: float | None = None
) -> FlowRun:
    """Run a deployment as a child of the calling flow run; wait ``timeout`` s, or for its end."""
    run = run_deployment(
        deployment,
        parameters=dict(parameters),
        timeout=timeout,
        poll_interval=1,
        # Prefect's client retries when the server dies before answering. Without a key that would
        # start a second run.
        idempotency_key=str(uuid4()),
    )
    return cast("FlowRun", run)  # it is a coroutine only where the caller is one


def run_children(
    deployment: str, parameters: Sequence[Mapping[str, str]], meanwhile: Callable[[], None]
) -> list[FlowRun]:
    """Run a deployment for each set of parameters, in parallel if there are workers.

    Only one run at a time waits for a worker; the next starts once it is taken. A pool takes the
    longest-waiting run first, so another workload's run waits for one of these, not for all. A run
    whose worker died is retried once. All are children of the calling flow run. ``meanwhile`` is
    called each second until the last has ended.
    """
    runs: dict[int, FlowRun] = {}
    left, again = list(range(len(parameters))), set[int]()
    while True:
        with get_client(sync_client=True) as client:
            runs = {number: client.read_flow_run(run.id) for number, run in runs.items()}
        crashed = {n for n, run in runs.items() if run.state_type == StateType.CRASHED} - again
        again |= crashed
        left = [*sorted(crashed), *left]
        is_waiting = any(run.state_type == StateType.SCHEDULED for run in runs.values())
        if left and not is_waiting:
            number = left.pop(0)
            runs[number] = run_child(deployment, parameters[number], timeout=0)
        meanwhile()
        if not left and all(run.state and run.state.is_final() for run in runs.values()):
            return [runs[number] for number in range(len(parameters))]
        time.sleep(POLL_SECONDS)


def run_name() -> str:
    """Name a flow run by its flow and workload file, for lists in the Prefect UI."""
    config = Path(flow_run.parameters.get("config", ""))
    named = config.stem or flow_run.parameters.get("workload", "")
    if config.name == home_workloads.RECORD:
        named = config.parent.parent.name  # turns/WORKLOAD/RUN
    return f"{flow_run.flow_name} {named}"
