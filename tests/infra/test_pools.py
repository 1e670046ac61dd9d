"""The job templates fill in to what a training needs: GPUs, shared memory, and the home."""

import asyncio
import json
import re
from typing import Any, cast

import jsonschema
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.workers.base import BaseJobConfiguration

from flows.doctor import checks
from tests.infra import templates
from tests.infra.pages import INFRA
from tests.infra.templates import HOME, IMAGE, VALUES

TYPES = ("docker", "kubernetes")


class Filled(BaseJobConfiguration, extra="allow"):
    """What a worker of any type makes of a template; the types' own checks are another file's."""

    container_create_kwargs: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    volumes: list[str] = []  # noqa: RUF012 - as above
    job_manifest: dict[str, Any] = {}  # noqa: RUF012 - as above


def filled(name: str, **values: object) -> Filled:
    no_server = cast("PrefectClient", object())  # templates without references to blocks ask none
    return asyncio.run(
        Filled.from_template_and_values(
            templates.read(name), {**VALUES, **values}, client=no_server
        )
    )


def pod(**values: object) -> dict[str, Any]:
    return filled("kubernetes", **values).job_manifest["spec"]["template"]["spec"]


def defaults(schema: dict[str, Any]) -> dict[str, Any]:
    fields = schema["properties"].items()
    return {name: field["default"] for name, field in fields if "default" in field}


@pytest.mark.parametrize("name", TYPES)
def test_every_variable_is_used_and_every_placeholder_is_a_variable(name: str) -> None:
    template = templates.read(name)
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert not {"command", "env", "working_dir"} & used, "a run does not choose how it starts"


@pytest.mark.parametrize("name", TYPES)
def test_the_defaults_and_a_deployments_values_are_valid(name: str) -> None:
    schema = templates.read(name)["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(defaults(schema) | VALUES, schema, jsonschema.Draft202012Validator)
    assert f"--tag {defaults(schema)['image']} " in (INFRA / "Dockerfile").read_text(), (
        "as it is built"
    )


@pytest.mark.parametrize("name", TYPES)
def test_a_run_can_run_no_other_code_where_two_variables_have_a_constant(name: str) -> None:
    template = templates.read(name)
    free = checks.free_variables(template)
    assert free == ("image", "mlflow_url"), "which the page says"
    for variable in free:
        template["variables"]["properties"][variable]["const"] = "ours"
    assert checks.free_variables(template) == ()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param("docker", {"command": "sh"}, id="docker-a-command"),
        pytest.param("docker", {"env": {"PYTHONPATH": "/tmp"}}, id="docker-variables"),
        pytest.param("kubernetes", {"command": "sh"}, id="kubernetes-a-command"),
        pytest.param("kubernetes", {"env": {"PYTHONPATH": "/tmp"}}, id="kubernetes-variables"),
        pytest.param(
            "kubernetes",
            {"cluster_config": {"config": {"users": []}, "context_name": "mine"}},
            id="kubernetes-a-login-that-is-a-program-of-the-worker",
        ),
        pytest.param("docker", {"gpus": 0}, id="docker-no-gpu"),
        pytest.param("docker", {"home": "flywheel"}, id="docker-a-volume-for-a-path"),
        pytest.param("docker", {"shm_size": "8Gi"}, id="docker-kubernetes-units"),
        pytest.param("docker", {"user": "root"}, id="docker-user-by-name"),
        pytest.param(
            "kubernetes",
            {"home_volume": {"name": "data", "emptyDir": {}}},
            id="kubernetes-a-volume-that-is-not-mounted",
        ),
        pytest.param("kubernetes", {"gpus": -1}, id="kubernetes-all-gpus"),
        pytest.param("kubernetes", {"node_selector": {"gpu": True}}, id="kubernetes-label-no-text"),
        pytest.param("kubernetes", {"image_pull_secrets": ["mine"]}, id="kubernetes-bare-secret"),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, wrong: dict[str, Any]) -> None:
    schema = templates.read(name)["variables"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(defaults(schema) | VALUES | wrong, schema)


@pytest.mark.parametrize("name", TYPES)
def test_a_job_is_told_its_home_and_mlflow_and_starts_our_engine(name: str) -> None:
    job = filled(name, mlflow_url="http://mlflow.example.com")
    assert job.command == "python -m flows.stack.engine"
    env = job.env
    assert env["FLYWHEEL_HOME"] == HOME
    assert env["MLFLOW_TRACKING_URI"] == "http://mlflow.example.com"


def test_a_container_gets_gpus_shared_memory_and_the_home_at_its_own_path() -> None:
    found = filled("docker", gpus=2)
    assert found.volumes == [f"{HOME}:{HOME}"]
    (gpus,) = found.container_create_kwargs["device_requests"]
    assert (gpus["Driver"], gpus["Count"], gpus["Capabilities"]) == ("nvidia", 2, [["gpu"]])
    assert found.container_create_kwargs["shm_size"] == "8g"
    assert "user" not in found.container_create_kwargs, "the image's own, unless one is named"


def test_a_pod_gets_gpus_shared_memory_and_the_home_at_its_own_path() -> None:
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    found = pod(gpus=2, home_volume={"name": "home", **claim})
    (container,) = found["containers"]
    assert container["image"] == IMAGE
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in found["volumes"]}
    assert volumes[mounts[HOME]] == {"name": "home", **claim}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}


def test_a_pod_that_shares_a_store_needs_no_claim() -> None:
    volumes = pod(home_volume={"name": "home", "emptyDir": {}})["volumes"]
    assert {"name": "home", "emptyDir": {}} in volumes
    assert "persistentVolumeClaim" not in json.dumps(volumes)


def test_a_pod_goes_to_the_nodes_that_were_named_and_puts_up_with_the_gpu_taint() -> None:
    found = pod(node_selector={"nvidia.com/gpu.product": "NVIDIA-L4"})
    assert found["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert found["tolerations"] == [taint]


def test_an_evicted_pod_has_time_for_a_checkpoint_and_is_not_started_again_by_kubernetes() -> None:
    assert pod()["terminationGracePeriodSeconds"] >= 30
    assert filled("kubernetes").job_manifest["spec"]["backoffLimit"] == 0, "Prefect starts it again"
