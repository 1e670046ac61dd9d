import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule

from flows import deploy, deployments
from flows.deployments import Spec, Timing
from flows.settings import Settings, load
from flows.stack import control
from tests.flows.stack.conftest import MODULES
from tests.support import logins

POOLS = Path(__file__).parents[3] / "infra/pools"

OF_PREFECT: dict[str, Any] = {
    "job_configuration": {"command": "{{ command }}"},
    "variables": {
        "properties": {
            "command": {"title": "Command", "default": None},
            "finished_job_ttl": {"title": "Finished Job TTL", "default": None},
        }
    },
}
"""The kind of template that a worker makes a missing pool of."""


def test_each_workload_is_scheduled_for_collecting_and_for_turns(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.yaml"
    real.write_text("workload: shop\n")
    (tmp_path / "workloads").mkdir()
    (tmp_path / "workloads" / "shop.yaml").symlink_to(real)
    specs = {spec.flow: spec for spec in deployments.specs(tmp_path / "workloads")}
    timed = {flow: spec.timings for flow, spec in specs.items() if spec.timings}
    assert {flow for flow, timings in timed.items() if any(one.config for one in timings)} == {
        "flows.collect:collect",
        "flows.turn:turn",
    }
    for flow in ("flows.collect:collect", "flows.turn:turn"):
        (timing,) = timed[flow]  # though the file has mistakes: its runs will name them
        assert (timing.workload, timing.config) == ("shop", real)


@pytest.mark.parametrize(("setting", "expected"), [("", []), ("prune_days: 30\n", ["shop"])])
def test_only_a_workload_whose_file_says_so_is_pruned(
    tmp_path: Path, setting: str, expected: list[str]
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    (tmp_path / "shop.yaml").write_text(f"workload: shop\nbase: base\n{setting}")
    specs = {spec.flow: spec for spec in deployments.specs(tmp_path)}
    assert [timing.workload for timing in specs["flows.prune.prune_flow:prune"].timings] == expected


def test_each_workload_has_a_rollback_to_click_beside_the_one_that_asks_for_a_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "shop.yaml").write_text("workload: shop\n")
    deployed = [
        spec for spec in deployments.specs(tmp_path) if spec.flow == "flows.rollback:rollback"
    ]
    assert [(spec.name, dict(spec.parameters)) for spec in deployed] == [
        (None, {}),
        ("shop", {"workload": "shop"}),
    ]


def test_training_and_evaluation_wait_for_the_gpu(tmp_path: Path) -> None:
    pools = {spec.flow.split(":")[1]: spec.pool for spec in deployments.specs(tmp_path)}
    assert [name for name, pool in pools.items() if pool == "gpu"] == ["train", "evaluate"]


def test_what_runs_for_long_holds_no_slot_that_it_would_have_to_renew(tmp_path: Path) -> None:
    limits = {spec.flow.split(":")[1]: spec.limit for spec in deployments.specs(tmp_path)}
    assert [limits[name] for name in ("turn", "train", "evaluate", "promote")] == [None] * 4


@pytest.fixture
def prefect(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A stack that is up, this process pointed at it, and a client of its Prefect API."""
    control.up(settings, lambda _: None, "tiny_deploy")
    monkeypatch.setattr(sys, "path", [*sys.path, str(MODULES)])
    with logins.pointed_at(settings), logins.prefect(settings) as http:
        yield http


def schedules(prefect: httpx.Client) -> dict[str | None, DeploymentSchedule]:
    deployed = prefect.get("/deployments/name/quick/quick").raise_for_status().json()["schedules"]
    return {each["slug"]: DeploymentSchedule.model_validate(each) for each in deployed}


def deploy_quick(*timings: Timing) -> None:
    deploy.deploy_specs(
        [Spec("tiny_flows:quick", "cpu", timings)], load({"FLYWHEEL_HOME": "/home"})
    )


@pytest.mark.slow
def test_deploying_again_keeps_what_a_person_changed(prefect: httpx.Client) -> None:
    shop = Timing("0 1 * * *", "shop", Path("/shop.yaml"))
    mail = Timing("0 2 * * *", "mail", Path("/mail.yaml"))
    deploy_quick(shop, mail)
    assert schedules(prefect)["shop"].parameters == {"config": "/shop.yaml"}

    deployed = prefect.get("/deployments/name/quick/quick").json()
    url = f"/deployments/{deployed['id']}"
    paused = schedules(prefect)["shop"].id
    prefect.patch(f"{url}/schedules/{paused}", json={"active": False}).raise_for_status()
    prefect.post(f"{url}/pause_deployment").raise_for_status()
    own = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * *"), active=True)
    body = [own.model_dump(mode="json")]
    prefect.post(f"{url}/schedules", json=body).raise_for_status()

    deploy_quick(Timing("0 4 * * *", "shop", Path("/shop.yaml")))
    after = schedules(prefect)
    assert set(after) == {"shop", None}
    assert after["shop"].id == paused
    assert not after["shop"].active
    assert after["shop"].schedule == CronSchedule(cron="0 4 * * *", timezone="UTC")
    assert prefect.get(url).json()["paused"]


def test_maintenance_looks_every_quarter_of_an_hour_and_verifies_champions_once_an_hour(
    tmp_path: Path,
) -> None:
    specs = {spec.flow: spec for spec in deployments.specs(tmp_path)}
    spec = specs["flows.maintenance:maintenance"]
    timed = [(one.workload, one.cron, dict(one.parameters)) for one in spec.timings]
    assert timed == [
        ("all", "*/15 * * * *", {"verify": False}),
        ("verify", "52 * * * *", {"verify": True}),
    ]


@pytest.mark.slow
def test_a_pool_made_of_our_template_is_told_the_home_and_nothing_of_this_machine(
    prefect: httpx.Client,
) -> None:
    template = POOLS / "kubernetes-gpu.json"
    made = ("create", "far", "--type", "kubernetes", "--base-job-template", str(template))
    environment = os.environ | {"PREFECT_API_URL": str(prefect.base_url).rstrip("/")}
    subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", *made], env=environment, check=True
    )
    deploy.deploy_specs([Spec("tiny_flows:quick", "far")], load({"FLYWHEEL_HOME": "/mnt/flywheel"}))
    deployed = prefect.get("/deployments/name/quick/quick").json()
    assert deployed["work_pool_name"] == "far"
    assert deployed["job_variables"] == {"home": "/mnt/flywheel"}
    pool = prefect.get("/work_pools/far").json()
    assert pool["type"] == "kubernetes"
    assert pool["base_job_template"] == json.loads(template.read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_release_gives_a_pool_its_constants_and_leaves_what_a_person_changed() -> None:
    def of_release(image: str, **fields: object) -> dict[str, Any]:
        template = json.loads((POOLS / "kubernetes-gpu.json").read_text())
        properties = template["variables"]["properties"]
        properties["image"] |= {"default": image, "const": image}
        template["job_configuration"] |= fields
        return template

    def template() -> dict[str, Any]:
        with get_client(sync_client=True) as client:
            return client.read_work_pool("far").base_job_template

    deploy.ensure_kubernetes_pool("far", of_release("flywheel:1"))
    assert template() == of_release("flywheel:1")
    changed = template()
    changed["variables"]["properties"]["gpus"]["default"] = 4
    with get_client(sync_client=True) as client:
        client.update_work_pool("far", WorkPoolUpdate(base_job_template=changed))

    deploy.ensure_kubernetes_pool("far", of_release("flywheel:2", stream_output=True))
    expected = of_release("flywheel:2", stream_output=True)
    expected["variables"]["properties"]["gpus"]["default"] = 4
    assert template() == expected

    with get_client(sync_client=True) as client:
        client.update_work_pool("far", WorkPoolUpdate(base_job_template=OF_PREFECT))
    deploy.ensure_kubernetes_pool("far", of_release("flywheel:2"))
    assert template() == of_release("flywheel:2")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_pool_of_processes_does_not_become_one_of_kubernetes() -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="near", type="process"))
    with pytest.raises(deploy.PoolTypeError, match="prefect work-pool delete near"):
        deploy.ensure_kubernetes_pool(
            "near", json.loads((POOLS / "kubernetes-gpu.json").read_text())
        )
