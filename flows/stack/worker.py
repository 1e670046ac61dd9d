"""The worker of a process pool: `python -m flows.stack.worker POOL [LIMIT]`."""

import asyncio
import os
import re
import sys
from typing import Any
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.schemas.objects import Flow as APIFlow
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers import process
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows import access
from flows.settings import load
from flows.stack.stack_services import engine_command

PACKAGES = "FLYWHEEL_FLOWS"
"""Names the packages whose flows the workers run, with commas between them; ours if not set."""


LOADER = "load_flow_from_flow_run"
"""What Prefect's worker loads a run's flow with in its own process; checked to be there."""


class FlowRefusedError(RuntimeError):
    """A deployment asks for something else than one of our flows."""


class SealedJob(ProcessJobConfiguration):
    """How a flow run is started, whatever the pool, the deployment and the run say about it."""

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        flow: APIFlow | None = None,
        work_pool: WorkPool | None = None,
        worker_name: str | None = None,
        worker_id: UUID | None = None,
    ) -> None:
        """Set command, folder and environment; ``FlowRefusedError`` if it is no flow of ours."""
        entrypoint = entrypoint_of(deployment)
        self.command = engine_command(sys.executable)
        self.working_dir = None
        self.env = {"PREFECT__FLOW_ENTRYPOINT": entrypoint}  # Prefect looks nowhere else, then
        super().prepare_for_flow_run(
            flow_run, deployment, flow, work_pool, worker_name, worker_id=worker_id
        )


def entrypoint_of(deployment: DeploymentResponse | None) -> str:
    """Return the flow that a deployment names, by its module's path.

    Raises:
        FlowRefusedError: It is in none of our packages, or it comes with steps that fetch code.
    """
    named = deployment.entrypoint if deployment else None
    packages = set((os.environ.get(PACKAGES) or "flows").split(","))
    is_ours = re.fullmatch(r"\w+(\.\w+)+", named or "") and (named or "").split(".")[0] in packages
    if named is None or not is_ours:
        raise FlowRefusedError(
            f"starting a flow run: its deployment names {named!r}; this worker runs flows of the "
            f"packages {', '.join(sorted(packages))} ({PACKAGES})"
        )
    if deployment and deployment.pull_steps:
        raise FlowRefusedError(
            f"starting a flow run of {named}: its deployment has pull steps, which run commands; "
            "`python -m flows.deploy` makes it anew without any"
        )
    return named


async def load_flow(flow_run: FlowRun, **_: object) -> Flow[..., Any]:
    """Load the flow of a run for its hooks, as ``SealedJob`` does for the run itself."""
    if flow_run.deployment_id is None:
        raise FlowRefusedError(f"loading the flow of run {flow_run.id}: it has no deployment")
    async with get_client() as client:
        deployment = await client.read_deployment(flow_run.deployment_id)
    return load_flow_from_entrypoint(entrypoint_of(deployment))


def make_worker(pool: str, limit: int | None) -> ProcessWorker:
    """Make the worker of a pool that is there."""
    found = ProcessWorker(
        work_pool_name=pool,
        name=pool,
        limit=limit,
        create_pool_if_not_found=False,
        heartbeat_interval_seconds=int(PREFECT_WORKER_HEARTBEAT_SECONDS.value()),
    )
    found.job_configuration = SealedJob
    # The worker itself loads a flow when a run was cancelled or crashed, pull steps included.
    if not hasattr(process, LOADER):
        raise FlowRefusedError(f"this Prefect's process worker has no {LOADER} to be replaced")
    setattr(process, LOADER, load_flow)
    return found


def main(pool: str, limit: str | None = None) -> None:
    """Serve until asked to stop; then it waits for its flow runs, as Prefect's worker does."""
    access.set_umask(load().home)
    setup_signal_handlers_worker(os.getpid(), f"the worker of {pool}", print)
    asyncio.run(make_worker(pool, int(limit) if limit else None).start())


if __name__ == "__main__":
    main(*sys.argv[1:])
