"""The worker of a process pool: `python -m flows.stack.worker POOL [LIMIT]`."""

import argparse
import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any
from uuid import UUID

import psutil
from prefect import Flow, get_client
from prefect.client.schemas.objects import Flow as APIFlow
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS
from prefect.workers import process
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows import access
from flows.machines import erased_copies
from flows.settings import load, misspelt_variables
from flows.stack.health import FLOW_RUN
from flows.stack.processes import started_with
from flows.stack.stack_services import engine_command

PACKAGES = "FLYWHEEL_FLOWS"  # packages whose flows the workers run, with commas; ours if not set

STOP_SECONDS = 35.0
"""For flow runs to end once the worker has to: a job may take 25 s to save its checkpoint, and the
run reports its end. Docker and Kubernetes are told to wait for a minute."""

LOADER = "load_flow_from_flow_run"  # Prefect's function that loads a run's flow; checked to exist


class FlowRefusedError(RuntimeError):
    """A deployment names something else than one of our flows."""


class SealedJob(ProcessJobConfiguration):
    """The start of a flow run; the pool, the deployment and the run can't change its command."""

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        flow: APIFlow | None = None,
        work_pool: WorkPool | None = None,
        worker_name: str | None = None,
        worker_id: UUID | None = None,
    ) -> None:
        """Set command, folder and environment; raise ``FlowRefusedError`` for foreign flows."""
        entrypoint = entrypoint_of(deployment)
        self.command = engine_command(sys.executable)
        self.working_dir = None
        self.env = {"PREFECT__FLOW_ENTRYPOINT": entrypoint}  # so Prefect looks nowhere else
        super().prepare_for_flow_run(
            flow_run, deployment, flow, work_pool, worker_name, worker_id=worker_id
        )


def entrypoint_of(deployment: DeploymentResponse | None) -> str:
    """Return the flow that a deployment names, by its module's path.

    Raises:
        FlowRefusedError: It is not in one of our packages, or has steps that fetch code.
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
            "`python -m flows.deploy` deploys it again without them"
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
    """Return the worker of an existing pool."""
    worker = ProcessWorker(
        work_pool_name=pool,
        name=pool,
        limit=limit,
        create_pool_if_not_found=False,
        heartbeat_interval_seconds=int(PREFECT_WORKER_HEARTBEAT_SECONDS.value()),
    )
    worker.job_configuration = SealedJob
    # The worker itself loads a flow when a run was cancelled or crashed, pull steps included.
    if not hasattr(process, LOADER):
        raise FlowRefusedError(f"this Prefect's process worker has no {LOADER} to replace")
    setattr(process, LOADER, load_flow)
    return worker


async def serve(worker: ProcessWorker) -> None:
    """Start flow runs until SIGTERM or Ctrl-C; then end those that run, and wait for them.

    A container ends with its worker: what still runs then is killed, neither saved nor reported. A
    second signal doesn't wait.
    """
    stopping = asyncio.Event()
    submit = worker.get_and_submit_flow_runs

    async def submit_until_stopped() -> list[FlowRun]:
        return [] if stopping.is_set() else await submit()

    def stop() -> None:
        if stopping.is_set():
            os.kill(os.getpid(), signal.SIGKILL)
        stopping.set()

    worker.get_and_submit_flow_runs = submit_until_stopped
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    serving = asyncio.create_task(worker.start())
    signalled = asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, signalled}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if not serving.done():
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await _end_runs()
        serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def _end_runs() -> None:
    ended = set[int]()
    while runs := [
        child for child in psutil.Process().children() if started_with(child, FLOW_RUN) is not None
    ]:
        for run in runs:
            if run.pid not in ended:
                ended.add(run.pid)
                with suppress(psutil.NoSuchProcess):
                    run.terminate()
        await asyncio.sleep(0.2)


def main() -> None:
    """Run flow runs until a signal to stop.

    ``StoreError``: the home's object store can't be shared with other machines.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.stack.worker", description="Run a pool's flow runs, until SIGTERM."
    )
    parser.add_argument("pool", help="cpu or gpu: a pool of the type process")
    parser.add_argument(
        "limit", nargs="?", type=int, help="flow runs at a time; without a limit if left out"
    )
    options = parser.parse_args()
    settings = load()
    for warning in misspelt_variables(os.environ):
        sys.stderr.write(f"warning: {warning}\n")
    access.set_umask(settings.home)
    if settings.store:
        settings.store.check()
    erased_copies.follow(settings)
    asyncio.run(serve(make_worker(options.pool, options.limit)))


if __name__ == "__main__":
    main()
