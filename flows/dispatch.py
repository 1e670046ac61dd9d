"""Start flow runs of deployments: the workers of their pools carry them out."""

from collections.abc import Mapping
from typing import cast

from prefect.client.schemas.objects import FlowRun
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
