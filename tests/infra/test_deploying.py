"""What ``infra/`` starts is what our own code starts."""

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.receive.settings import Limits
from components.serve import gateway_process
from flows import deployments
from flows.deployments import Spec
from flows.settings import load
from flows.stack import stack_services
from tests.infra import pages
from tests.infra.pages import INFRA


def as_prefect_says_it(spec: Spec) -> dict[str, Any]:
    name = spec.flow.partition(":")[2]
    said: dict[str, Any] = {"name": name, "entrypoint": spec.flow.replace(":", ".")}
    if spec.limit:
        surplus = "CANCEL_NEW" if spec.drops_surplus else "ENQUEUE"
        said["concurrency_limit"] = {"limit": spec.limit, "collision_strategy": surplus}
    if spec.timings:
        said["schedules"] = [
            {"slug": timing.workload, "cron": timing.cron, "timezone": "UTC"}
            | ({"parameters": dict(timing.parameters)} if timing.parameters else {})
            for timing in spec.timings
        ]
    return said | {"pool": spec.pool}


def test_prefect_yaml_has_the_deployments_of_the_code(tmp_path: Path) -> None:
    file = yaml.safe_load((INFRA / "prefect.yaml").read_text())
    found = [{**one, "pool": one["work_pool"]["name"]} for one in file["deployments"]]
    for one in found:
        assert list(one.pop("work_pool")) == ["name"], "how a run starts is its worker's affair"
    assert found == [as_prefect_says_it(spec) for spec in deployments.specs(tmp_path)]


def test_composed_workers_are_started_as_the_stacks_own(tmp_path: Path) -> None:
    file = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    own = stack_services.workers(load({"FLYWHEEL_HOME": str(tmp_path)}))
    for name, service in zip(("worker-cpu", "worker-gpu"), own, strict=True):
        assert file[name]["command"][1:] == list(service.command)[1:]


def test_what_applications_reach_has_no_login_that_it_does_not_need() -> None:
    file = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    secrets = {
        service: [name for name, text in file[service]["environment"].items() if ":?" in text]
        for service in ("receiver", "gateway")
    }
    assert secrets == {"receiver": [], "gateway": ["MLFLOW_TRACKING_PASSWORD"]}
    assert file["receiver"]["environment"].items() <= file["worker-cpu"]["environment"].items()


def test_a_trainer_may_load_what_was_compiled_in_its_home() -> None:
    worker = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]["worker-gpu"]
    assert "HOME=/tmp " in (INFRA / "Dockerfile").read_text()
    assert worker["tmpfs"] == ["/tmp:exec"], "Docker's default for a tmpfs is noexec"


def test_the_cpu_workers_curations_have_room_for_their_threads_on_64_cores() -> None:
    worker = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]["worker-cpu"]
    curations = int(worker["command"][-1])
    assert worker["pids_limit"] > curations * 64 * (64 + 4), "a process loads NumPy, Arrow, DuckDB"


def test_a_server_has_the_time_that_its_open_requests_may_take() -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    answers = inspect.signature(gateway_process.run).parameters["shutdown_seconds"].default
    for name, seconds in (("receiver", Limits().request_seconds), ("gateway", answers)):
        assert float(services[name]["stop_grace_period"].removesuffix("s")) > seconds + 10


def test_the_images_pins_are_of_what_is_declared() -> None:
    def pins(name: str) -> dict[str, str]:
        found = re.findall(r"(?m)^([\w.-]+)==([^\s+]+)", (INFRA / name).read_text())
        return {canonicalize_name(package): version for package, version in found}

    project = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"--extra (\w+)", (INFRA / "lock.sh").read_text())
    declared = [*project["dependencies"]]
    declared += [each for extra in extras for each in project["optional-dependencies"][extra]]
    assert len(extras) >= 3
    for torch in ("torch-cpu.lock", "torch-cuda.lock"):
        locked = pins("requirements.lock") | pins(torch)
        wrong = [
            str(each)
            for each in map(Requirement, declared)
            if locked.get(canonicalize_name(each.name), "none") not in each.specifier
        ]
        assert wrong == [], "`make lock` writes the pins anew"


def test_the_images_have_the_files_of_infra_that_commands_and_servers_name() -> None:
    named = re.findall(r"infra/\S+", "\n".join(pages.commands("team.md", "Operate")))
    named += re.findall(r"/opt/flywheel/(infra/\S+)", (INFRA / "compose.yaml").read_text())
    assert len(named) >= 2
    sent = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    assert [name for name in named if f"!{name}" not in sent] == []
    (copied,) = re.findall(
        r"(?m)^COPY (infra/constraints.txt .*) infra/$", (INFRA / "Dockerfile").read_text()
    )
    assert set(named) <= set(copied.split())
