"""Check the job templates with the workers' own classes: ``python -m tests.infra.check_workers``.

Wants packages that nothing else here uses (130 MB with what they need), so it is no part of the
test suite: ``pip install prefect-docker prefect-kubernetes``. It needs no Docker and no cluster: it
goes as far as the arguments for Docker's API, and as far as the manifest, which is held against
Kubernetes' JSON schemas.
"""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import kubernetes_validate
import typer
from docker.models import containers
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.workers.base import BaseJobConfiguration
from prefect_docker.worker import (  # pyright: ignore[reportMissingImports]
    DockerWorker,
    DockerWorkerJobConfiguration,
)
from prefect_kubernetes.worker import (  # pyright: ignore[reportMissingImports]
    KubernetesWorker,
    KubernetesWorkerJobConfiguration,
)

from tests.infra import templates

API = {"PREFECT_API_URL": "http://prefect.example.com/api"}


def prepared(kind: Any, name: str, **values: object) -> Any:
    """Give what a worker starts for a flow run of a deployment to the pool."""
    given = {**templates.VALUES, **values}
    no_server = cast("PrefectClient", object())
    found: BaseJobConfiguration = asyncio.run(
        kind.from_template_and_values(templates.read(name), given, client=no_server)
    )
    flow = Flow(id=uuid4(), name="train", labels={})
    found.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=flow.id, name="train shop"), flow=flow)
    return found


def check_docker() -> None:
    """Go as far as the body of the request that makes the container."""
    ready = prepared(DockerWorkerJobConfiguration, "docker", gpus=2, user="1000:1000")
    worker: Any = DockerWorker.__new__(DockerWorker)  # its constructor wants a server
    docker = SimpleNamespace(version=lambda: {"Version": "28.0.0"})
    settings = worker._build_container_settings(docker, ready)
    body = cast("Any", containers)._create_container_args(settings | {"version": "1.44"})
    host = body["host_config"]
    (gpus,) = host["DeviceRequests"]
    assert (gpus["Driver"], gpus["Count"], gpus["Capabilities"]) == ("nvidia", 2, [["gpu"]])
    assert host["ShmSize"] == 8 * 2**30
    assert host["Binds"] == [f"{templates.HOME}:{templates.HOME}"]
    assert host["Init"] is True
    assert body["environment"]["FLYWHEEL_HOME"] == templates.HOME
    typer.echo(f"docker: {sorted(host)} as wanted")


def check_kubernetes() -> None:
    """Hold the manifest against the strict schemas of old and new versions of Kubernetes."""
    ready = prepared(KubernetesWorkerJobConfiguration, "kubernetes", gpus=2, memory_limit="64Gi")
    manifest = ready.job_manifest
    pod = manifest["spec"]["template"]["spec"]
    # Prefect's worker insists on these two there, where Kubernetes knows them not and drops them.
    assert (pod.pop("completions"), pod.pop("parallelism")) == (1, 1)
    for version in ("1.27", "1.31", kubernetes_validate.latest_version()):
        used = kubernetes_validate.validate(manifest, version, strict=True)
        typer.echo(f"kubernetes: a valid job of {used}")


def check_variables(worker: Any, name: str) -> None:
    """See that the fields that ours fills in are those that the worker's own template knows."""
    own = worker.get_default_base_job_template()["job_configuration"]
    unknown = set(templates.read(name)["job_configuration"]) - set(own)
    assert not unknown, f"{name}: the worker knows no {unknown}"


def main() -> None:
    """Check both templates; what is wrong raises."""
    check_variables(DockerWorker, "docker")
    check_variables(KubernetesWorker, "kubernetes")
    check_docker()
    check_kubernetes()


if __name__ == "__main__":
    main()
