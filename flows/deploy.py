"""Deploy all flows to Prefect with their pools and schedules: `python -m flows.deploy`."""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from flows import automations
from flows.deployments import Spec, Timing, specs
from flows.settings import Settings, load
from flows.stack import health
from flows.stack.stack_services import engine_command

KUBERNETES = "kubernetes"  # the type of a pool, in Prefect


class PoolTypeError(RuntimeError):
    """A pool of that name is of another type, which can't be changed."""


def deploy_specs(specs: Sequence[Spec], settings: Settings) -> None:
    """Create or update one deployment for each spec, with one schedule for each timing.

    A missing pool becomes a process pool; one that is there gets ``process_template``. A pool that
    a person made of a template in ``infra/pools`` starts its flow runs as its worker knows.
    """
    with get_client(sync_client=True) as client:
        types = {
            pool: _ensured_pool(client, pool, settings) for pool in {spec.pool for spec in specs}
        }
        for spec in specs:
            # The stack's own workers run in this environment. Others may be on another machine,
            # with the home at the same path: flow runs name files by their whole path.
            is_ours = types[spec.pool] == ProcessWorker.type
            deployment = _deployment(spec, {} if is_ours else {"home": str(settings.home)})
            # apply() has an async face too, which only a caller with an event loop gets.
            deployment_id = cast("UUID", deployment.apply())
            _schedule(client, deployment_id, spec.timings)


def _deployment(spec: Spec, job_variables: dict[str, str]) -> RunnerDeployment:
    module, _, function = spec.flow.partition(":")
    flow: Flow[..., Any] = getattr(importlib.import_module(module), function)
    strategies = ConcurrencyLimitStrategy
    collision = strategies.CANCEL_NEW if spec.drops_surplus else strategies.ENQUEUE
    deployment = RunnerDeployment.from_flow(
        flow,
        name=spec.name or flow.name,
        parameters=dict(spec.parameters),
        work_pool_name=spec.pool,
        job_variables=job_variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
        concurrency_limit=spec.limit
        and ConcurrencyLimitConfig(limit=spec.limit, collision_strategy=collision),
    )
    # What is not set is not sent, and so stays as a person left it in the UI.
    deployment.model_fields_set.difference_update({"schedules", "paused"})
    return deployment


def process_template(settings: Settings) -> dict[str, Any]:
    """Return the template of a process pool: nothing of how a run starts can be chosen."""
    # Our workers know it themselves (``flows.stack.worker``); Prefect's own takes it from here.
    python = "python" if settings.elsewhere else sys.executable
    return {
        "job_configuration": {"command": engine_command(python)},
        "variables": {"type": "object", "properties": {}, "additionalProperties": False},
    }


def _ensured_pool(client: SyncPrefectClient, name: str, settings: Settings) -> str:
    template = process_template(settings)
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        return client.create_work_pool(
            WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
        ).type
    if pool.type == ProcessWorker.type and pool.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return pool.type


def ensure_kubernetes_pool(name: str, template: Mapping[str, Any]) -> None:
    """Create a Kubernetes pool, or give an existing one the ``template`` of this release.

    Its variables keep the defaults that the pool has, which people change in the UI, except where
    the template has a ``const``: an installation's image, for example, is not theirs to choose. Of
    a pool that a worker made of Prefect's own template nothing is kept.

    Raises:
        PoolTypeError: The pool is no Kubernetes pool.
    """
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            new = WorkPoolCreate(name=name, type=KUBERNETES, base_job_template=dict(template))
            client.create_work_pool(new)
            return
        if pool.type != KUBERNETES:
            raise PoolTypeError(
                f"deploying: the pool {name} is of the type {pool.type}, expected {KUBERNETES}; "
                f"`prefect work-pool delete {name}` makes room for one"
            )
        merged = _with_defaults_of(pool.base_job_template, template)
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=merged))


def _with_defaults_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = deepcopy(dict(new))
    before = old.get("variables", {}).get("properties", {})
    for name, variable in merged["variables"]["properties"].items():
        known = before.get(name, {})
        is_same = "default" in known and known == variable | {"default": known["default"]}
        if is_same and "const" not in variable:
            variable["default"] = known["default"]
    return merged


def _schedule(client: SyncPrefectClient, deployment: UUID, timings: Sequence[Timing]) -> None:
    schedules = client.read_deployment_schedules(deployment)
    ours = {schedule.slug: schedule.id for schedule in schedules if schedule.slug is not None}
    for timing in timings:
        cron = CronSchedule(cron=timing.cron, timezone="UTC")
        parameters: dict[str, str | bool] = dict(timing.parameters)
        if timing.config:
            parameters["config"] = str(timing.config)
        existing = ours.pop(timing.workload, None)
        if existing is None:
            schedule = DeploymentScheduleCreate(
                schedule=cron, parameters=parameters, slug=timing.workload
            )
            client.create_deployment_schedules(deployment, [schedule])
        else:
            client.update_deployment_schedule(
                deployment, existing, schedule=cron, parameters=parameters
            )
    for gone in ours.values():
        client.delete_deployment_schedule(deployment, gone)


def deploy_all(home: Settings) -> None:
    """Deploy all flows with the schedules of the home's workloads, and install the automations."""
    deploy_specs(specs(home.workloads), home)
    automations.install_automations()


def main() -> None:
    """Deploy the environment's flows, once ``PREFECT_API_URL`` or the home's Prefect answers."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.deploy",
        description="Deploy all flows to Prefect, with their pools and schedules.",
    )
    parser.add_argument(
        "--kubernetes",
        type=Path,
        metavar="FILE",
        help="make the pool gpu a Kubernetes one with this job template, or give it this one; "
        "defaults that people changed stay, but for constants",
    )
    options = parser.parse_args()
    settings = load()
    url = PREFECT_API_URL.value() or settings.prefect_api_url
    health.wait_until_answering(f"{url}/health")
    with temporary_settings({PREFECT_API_URL: url}):
        if options.kubernetes:
            ensure_kubernetes_pool("gpu", json.loads(options.kubernetes.read_text()))
        deploy_all(settings)


if __name__ == "__main__":
    main()
