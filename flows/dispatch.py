"""Start flow runs of deployments, which the workers of their pools carry out, and find them."""

from collections.abc import Mapping
from typing import cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment


def run(deployment: str, parameters: Mapping[str, str]) -> FlowRun:
    """Run a deployment as a child of the calling flow run and wait for its end."""
    ended = run_deployment(deployment, parameters=dict(parameters), poll_interval=1)
    return cast("FlowRun", ended)  # it is a coroutine only where the caller is one


def start(deployment: str, parameters: Mapping[str, str], tags: list[str]) -> FlowRun:
    """Start a run that belongs to nobody, and return at once."""
    started = run_deployment(
        deployment, parameters=dict(parameters), timeout=0, as_subflow=False, tags=tags
    )
    return cast("FlowRun", started)


def find(flow: str, *tags: str, states: list[StateType]) -> list[FlowRun]:
    """Find the runs of a flow that carry all ``tags`` and are in one of ``states``."""
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=list(tags)) if tags else None,
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
            ),
        )
